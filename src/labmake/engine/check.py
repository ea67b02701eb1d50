"""Checking steps: each runs twice, apart from all results, where and when and as what may differ between two machines.

The second run has another folder, moment, hash seed and umask, its inputs laid in the reverse order,
and one thread if the step books several processors. If the results differ and what they show is not reason enough,
single runs tell which of these alone makes a difference. Nothing is stored, recorded or placed.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labmake.engine.causes import (
    FOLDER,
    LISTING,
    ORDER,
    RANDOM,
    ROUNDING,
    SET,
    THREADS,
    TIME,
    UMASK,
    UNDECLARED,
    UNSTEADY,
    Surroundings,
    day,
)
from labmake.engine.commands import flat
from labmake.engine.compare import Comparison, parse_comparison, unequal
from labmake.engine.evidence import Difference, evidence
from labmake.engine.failures import step_error
from labmake.engine.nodes import Run
from labmake.engine.outside import Strays, strays
from labmake.engine.rulebook import Match
from labmake.engine.runner import Executor
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.executors.launch import THREADS as THREAD_WORDS
from labmake.executors.strace import Seen, seen, strace, under_strace
from labmake.frozen import frozen
from labmake.layout import short
from labmake.model import Trace
from labmake.store.place import place_file, place_folder

APART = 2.1
"""Seconds between the starts of a step's two runs: times in zip files have steps of two."""

Job = dict[str, Any]
Executors = Callable[[str], Executor]
"""An executor whose step folders lie in this part of the process's folder."""


@frozen
class Circumstances:
    """What differs between runs of one step: `folder` (a part of the folder for step folders), hash `seed`, `umask`
    (octal), whether it has all the threads it booked, whether its inputs are laid `backwards`."""

    folder: str = "a"
    seed: str = "0"
    umask: str = "022"
    threaded: bool = True
    backwards: bool = False


FIRST = Circumstances()
SECOND = Circumstances("another-folder-with-a-longer-name", "20011", "077", False, True)

VARIED: tuple[tuple[str, Circumstances], ...] = (
    (SET, replace(FIRST, seed=SECOND.seed)),
    (FOLDER, replace(FIRST, folder=SECOND.folder)),
    (UMASK, replace(FIRST, umask=SECOND.umask)),
    (LISTING, replace(FIRST, backwards=True)),
    (THREADS, replace(FIRST, threaded=False)),
)
"""What is likely the cause if this alone makes a difference."""


@frozen
class Subject:
    """A step that is to be checked: what would run for it, and what was recorded of it, if anything."""

    match: Match
    run: Run
    recorded: Trace | None

    @property
    def node(self) -> str:
        return self.match.node

    @property
    def comparison(self) -> Comparison:
        return parse_comparison(self.run.options.get("compare", "bytes"))


@frozen
class Ran:
    """One run: the folder that holds what it made at its places, digests by output, seconds, and what strace saw of it
    (None without it)."""

    folder: Path
    outputs: Mapping[str, str]
    seconds: float
    seen: Seen | None


@frozen
class Verdict:
    """What a check found of one step.

    `differences` are those between the two runs, `recorded` those between the first and what was recorded on `made`
    (seconds since 1970), if the two are the same; `lost` says that the store no longer has that. `causes` are likely
    for either. `error` is set if a run did not succeed.
    """

    subject: Subject
    seconds: float = 0.0
    differences: Sequence[Difference] = ()
    recorded: Sequence[Difference] = ()
    causes: Sequence[str] = ()
    made: float = 0.0
    lost: bool = False
    strays: Strays = field(default_factory=Strays)
    error: LabmakeError | None = None

    @property
    def word(self) -> str:
        """same, differs or failed."""
        if self.error is not None:
            return "failed"
        return "differs" if self.differences or self.recorded else "same"


@dataclass
class Checker:
    """Runs checks. `executors` makes an executor, `folder` is the folder of this process below that for step folders,
    `budget` the seconds that finding the cause of one step's difference may take."""

    services: Services
    executors: Executors
    folder: Path
    budget: float
    told: Callable[[str], None]
    began: float = field(default_factory=time.time)
    _count: int = 0

    def check(self, subjects: Sequence[Subject]) -> Generator[Verdict, None, None]:
        """The verdict of each subject, as soon as it is known: all run once, and then all again."""
        first: dict[str, Ran] = {}
        last = 0.0
        for subject, ended, started in self._each(FIRST, subjects, strace()[0]):
            if isinstance(ended, LabmakeError):
                yield Verdict(subject, error=ended)
                continue
            if all(map(self.services.blobs.has, ended.outputs.values())):
                shutil.rmtree(ended.folder)  # a thousand results need not lie here and in the store
            first[subject.node], last = ended, max(last, started)
        again = [one for one in subjects if one.node in first]
        if again:
            time.sleep(max(0.0, last + APART - time.time()))
        for subject, ended, _ in self._each(SECOND, again, strace()[0]):
            yield self._verdict(subject, first.pop(subject.node), ended)

    def close(self) -> None:
        """Remove what the runs have left."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _verdict(self, subject: Subject, one: Ran, other: Ran | LabmakeError) -> Verdict:
        if isinstance(other, LabmakeError):
            return Verdict(subject, one.seconds, error=_second_failed(other))
        try:
            verdict = self._compared(subject, one, other)
        except LabmakeError as error:
            error.where = error.where or subject.match.rule.where
            return Verdict(subject, one.seconds, error=error)
        for ran in (one, other):
            shutil.rmtree(ran.folder, ignore_errors=True)
        return verdict

    def _compared(self, subject: Subject, one: Ran, other: Ran) -> Verdict:
        around = Surroundings(str(self.folder.parent), self.began, time.time())
        inputs = {name: flat(role) for name, role in self.services.actions[subject.node].roles.items()}
        found = strays(self.services.project, inputs, str(self.folder), (one.seen, other.seen))
        verdict = Verdict(subject, one.seconds, strays=found)
        if one.outputs != other.outputs:
            there = one if one.folder.exists() else self._placed(subject, one.outputs)
            differences = self._differences(subject, there, other, around) if there is not None else []
            if differences:
                causes = self._causes(subject, differences, one)
                return replace(verdict, differences=differences, causes=causes)
        recorded = subject.recorded
        if recorded is None or recorded.outputs == one.outputs:
            return replace(verdict, made=recorded.when if recorded is not None else 0.0)
        before = self._placed(subject, recorded.outputs)
        if before is None:
            return replace(verdict, made=recorded.when, lost=True)
        since = replace(around, after=min(recorded.when - recorded.seconds, self.began))
        differences = self._differences(subject, before, one, since)
        causes = _shown(differences)
        if differences and (found.read or found.listed or found.connected):
            causes.append(UNDECLARED)
        return replace(verdict, made=recorded.when, recorded=differences, causes=causes)

    def _differences(self, subject: Subject, one: Ran, other: Ran, around: Surroundings) -> list[Difference]:
        """How the outputs of two runs differ, the place of each in the step folder before its files."""
        found: list[Difference] = []
        for name, place in subject.run.job["outputs"].items():
            if one.outputs[name] == other.outputs[name]:
                continue
            mine, its = (ran.folder / place.rstrip("/") for ran in (one, other))
            for each in evidence(mine, its, unequal(mine, its, subject.comparison), around):
                found.append(replace(each, place=_below(place, each.place)))
        return found

    def _placed(self, subject: Subject, outputs: Mapping[str, str]) -> Ran | None:
        """What the store has of these outputs, put where it can be compared; None if that is not all."""
        blobs = self.services.blobs
        if not all(map(blobs.has, outputs.values())):
            return None
        folder = self._new_folder()
        for name, place in subject.run.job["outputs"].items():
            digest, to = outputs[name], folder / place.rstrip("/")
            to.parent.mkdir(parents=True, exist_ok=True)
            if digest.endswith("/"):
                place_folder(blobs, digest, str(to), folder / ".aside")
            else:
                place_file(blobs, digest, str(to))
        return Ran(folder, outputs, 0.0, None)

    # Causes ------------------------------------------------------------------------------------------------------

    def _causes(self, subject: Subject, differences: Sequence[Difference], one: Ran) -> list[str]:
        """What two runs show, and where that leaves doubt, what single runs do."""
        shown = _shown(differences)
        if shown and ORDER not in shown and all(each.whole for each in differences):
            return shown
        if one.seconds * (len(VARIED) + 2) > self.budget:
            self.told(f"{self._name(subject)}: the cause is not looked for by more runs, which would take too long")
            return shown
        self.told(f"{self._name(subject)} differs: looking for the cause")
        reference = self._alone(subject, FIRST)
        repeated = self._alone(subject, FIRST, after=APART)
        if self._differ(subject, reference, repeated):
            steady = subject.run.request.cpus > 1 and not self._differ(
                subject, *(self._alone(subject, replace(FIRST, threaded=False)) for _ in range(2))
            )
            return [THREADS] if steady else shown or [UNSTEADY]
        alone = [cause for cause, how in VARIED if self._matters(subject, cause, reference, how)]
        # What came out the same at another moment is neither random nor a time, whatever it looks like.
        return alone or [cause for cause in shown if cause not in (ORDER, TIME, RANDOM, ROUNDING)]

    def _matters(self, subject: Subject, cause: str, reference: Ran | LabmakeError, how: Circumstances) -> bool:
        if cause == THREADS and subject.run.request.cpus == 1:
            return False
        return self._differ(subject, reference, self._alone(subject, how))

    def _differ(self, subject: Subject, one: Ran | LabmakeError, other: Ran | LabmakeError) -> bool:
        """Whether two runs differ; one that fails differs from one that does not."""
        if not isinstance(one, Ran) or not isinstance(other, Ran):
            return isinstance(one, Ran) != isinstance(other, Ran)
        return any(
            one.outputs[name] != other.outputs[name]
            and unequal(one.folder / place.rstrip("/"), other.folder / place.rstrip("/"), subject.comparison)
            for name, place in subject.run.job["outputs"].items()
        )

    # Running -----------------------------------------------------------------------------------------------------

    def _alone(self, subject: Subject, how: Circumstances, after: float = 0.0) -> Ran | LabmakeError:
        """Run a step by itself, so that the folder of two such runs is the very same path."""
        time.sleep(after)
        return next(self._each(replace(how, folder=f"alone-{how.folder}"), [subject], ()))[1]

    def _each(
        self, how: Circumstances, subjects: Sequence[Subject], words: Sequence[str]
    ) -> Iterator[tuple[Subject, Ran | LabmakeError, float]]:
        """Run steps, as many at once as there is room: each with how it ended and when it was started, as they end.

        `words` is the command that looks at them.
        """
        nodes = {one.node: one for one in subjects}
        started: dict[str, float] = {}
        with _closed(self.executors(how.folder)) as executor:
            for one in subjects:
                refusal = executor.pool.refusal(one.run.request)
                if refusal is not None:
                    refusal.where = one.match.rule.where
                    yield one, refusal, 0.0
                    continue
                executor.submit(_job(one, how, self._new_folder(), words), one.run.request)
            while executor.waiting or executor.busy:
                executor.start_ready(lambda job: True)
                for job in executor.take_begun():
                    started[job["id"]] = time.time()
                for job, answer in executor.wait(None):
                    one = nodes[job["id"]]
                    yield one, self._ended(one, job, answer), started[one.node]

    def _ended(self, subject: Subject, job: Job, answer: Mapping[str, Any]) -> Ran | LabmakeError:
        node, folder = subject.node, Path(job["apart"])
        if answer["ok"]:
            looked_at = None
            log = _log_of(folder)
            if log.exists():
                with log.open(errors="surrogateescape") as lines:
                    looked_at = seen(lines)
                log.unlink()
            return Ran(folder, answer["outputs"], answer["seconds"], looked_at)
        if answer["why"] == "changed":
            return LabmakeError(
                f"a source of {self._name(subject)} changed while its step ran",
                list(answer["facts"].items()),
                ["check it when nothing writes to it"],
                subject.match.rule.where,
            )
        order = {**job, "command": subject.run.job["command"], "seconds": job["seconds"]}
        error = step_error(self.services, subject.match, self.services.actions[node], order, dict(answer))
        error.facts = [(label, fact) for label, fact in error.facts if label not in ("log", "folder")]
        error.todo = [advice for advice in error.todo if "labmake logs" not in advice and "its folder" not in advice]
        return error

    def _name(self, subject: Subject) -> str:
        return short(subject.node, subject.match.experiment)

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self.folder / "apart" / str(self._count)
        folder.mkdir(parents=True)
        return folder


def _job(subject: Subject, how: Circumstances, apart: Path, words: Sequence[str]) -> Job:
    """The job of a run that makes no result, under these circumstances."""
    order, cpus = subject.run.job, subject.run.request.cpus
    command = ["sh", "-c", f'umask {how.umask}; exec "$@"', "sh", *order["command"]]
    if words:
        command = under_strace(words, command, str(_log_of(apart)))
    threads = dict.fromkeys(THREAD_WORDS, str(cpus if how.threaded else 1))
    return {
        **order,
        "command": command,
        "inputs": order["inputs"][::-1] if how.backwards else order["inputs"],
        "env": {**threads, **order["env"], "PYTHONHASHSEED": how.seed},
        "seconds": subject.run.request.seconds,
        "targets": {},
        "batch": order["batch"] and {**order["batch"], "most": 1},
        "apart": str(apart),
        "checkpoint": order["checkpoint"] and f"{apart}.checkpoint",
        "anew": True,
        "failed": f"{apart}.failed",
        "aside": "",
    }


def _log_of(folder: Path) -> Path:
    """Where the log of strace lies of a run that puts what it makes into `folder`."""
    return folder.with_name(f"{folder.name}.strace")


@contextmanager
def _closed(executor: Executor) -> Iterator[Executor]:
    """Close an executor at the end, however it comes; an interrupt meanwhile would leave its folders behind."""
    try:
        yield executor
    finally:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            executor.close()
        finally:
            signal.signal(signal.SIGINT, before)


def _second_failed(error: Ran | LabmakeError) -> LabmakeError:
    """The error of a step that succeeded first and failed then."""
    assert isinstance(error, LabmakeError)
    error.what = f"{error.what} in its second run, and succeeded in its first"
    error.facts.append(("second run", "another folder, hash seed and umask, inputs laid in reverse order, one thread"))
    return error


def _shown(differences: Iterable[Difference]) -> list[str]:
    """The causes that differences show, each once."""
    return list(dict.fromkeys(cause for one in differences for cause in one.causes))


def _below(place: str, inside: str) -> str:
    """The name of a file, or of a part of it, in an output."""
    if not inside:
        return place
    return f"{place}{inside}" if place.endswith("/") or inside.startswith(":") else f"{place}: {inside}"


def recorded_on(verdict: Verdict) -> str:
    """When what was recorded was made, as it is shown."""
    return day(verdict.made)

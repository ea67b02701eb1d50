"""Several builds at once, for the oracle: two or three builders, one of them killed or interrupted at times."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from oracle_model import Identity, Known, Look, World, after, build
from oracle_paths import lies
from oracle_running import Mismatch, end_of, start, wait_for_the_end

if TYPE_CHECKING:
    from oracle_history import History

INTERRUPTED = 130


@dataclass
class Side:
    """A worktree with what the model says of it; all sides share the store, the log and what was ever done."""

    name: str
    root: Path
    world: World


@dataclass
class Builder:
    """One of the builds that run at once: what it asks for, and what it would come to if it were alone."""

    side: Side
    experiment: str
    words: list[str]
    targets: list[str]
    discard: bool
    delay: float
    look: Look
    codes: set[int]
    """The exit codes it may end with, unless it is stopped."""
    stop: int = 0
    """The signal it gets at a random moment, 0 for none."""
    pid: int = 0
    printed: Path = field(default_factory=Path)
    stopped: bool = False
    """Whether it ended by its signal."""

    @property
    def jobs(self) -> int:
        return int(self.words[1])

    @property
    def complete(self) -> bool:
        """Whether it removes stale targets."""
        return not self.targets and self.codes == {0} and not self.stopped


def second_side(history: History) -> Side:
    """A linked worktree of the project, as git makes it."""
    root = history.folder / "other"
    own = history.root / ".git" / "worktrees" / "other"
    own.mkdir(parents=True)
    (own / "commondir").write_text("../..\n")
    root.mkdir()
    (root / ".git").write_text(f"gitdir: {own}\n")
    first = history.world
    return Side("other", root, World(first.log, first.code, done=first.done, unsure=first.unsure, losses=first.losses))


def check_out(history: History, side: Side, rng: random.Random) -> None:
    """Write into the second worktree what the first has, or what it had some edits ago: another branch."""
    first, world = history.world, side.world
    code, pipeline = rng.choice(history.past) if history.past and rng.random() < 0.4 else (first.code, history.pipeline)
    world.code = code
    for name in first.pipelines:
        world.trees.setdefault(name, {})
        world.known.setdefault(name, {})
        world.fuzzy.setdefault(name, set())
    world.pipelines |= first.pipelines | {history.current: pipeline}
    world.comments |= first.comments
    with at(history, side):
        history.write()


@contextmanager
def at(history: History, side: Side) -> Iterator[None]:
    """While it is entered, the history is about a side."""
    before = history.root, history.world
    history.root, history.world = side.root, side.world
    try:
        yield
    finally:
        history.root, history.world = before


def build_together(history: History, rng: random.Random) -> None:
    """Two or three builds at once in one worktree or two; then each worktree and all that ran is judged."""
    sides = [Side("project", history.root, history.world)]
    if rng.random() < 0.5:
        history.other = history.other or second_side(history)
        check_out(history, history.other, rng)
        sides.append(history.other)
    builders = _builders(history, rng, sides)
    for builder in builders:
        by = f"   {signal.Signals(builder.stop).name}" if builder.stop else ""
        told = " ".join(_command(history, builder))
        history.tell(f"together in {builder.side.name}: labmake {told}   → {builder.codes}{by}")
    history.builds += len(builders)
    before = _left(history)
    codes = _run(history, rng, builders)
    wait_for_the_end(history.folder)
    printed = "\n".join(f"--- {b.side.name} → {codes[b.pid]}\n{b.printed.read_text()}" for b in builders)
    for builder in builders:
        if not builder.stopped and codes[builder.pid] not in builder.codes:
            raise Mismatch(f"exit code {codes[builder.pid]}, expected {builder.codes}\n{printed}")
        if "Traceback" in printed:
            raise Mismatch(f"a traceback\n{printed}")
    _judge_runs(history, builders, history.noted(), printed)
    for side in sides:
        for name in side.world.pipelines:
            mine = [b for b in builders if b.side is side and b.experiment == name]
            if mine:
                with at(history, side):
                    _judge_files(history, name, mine, printed)
    left = _left(history) - before
    if left and not any(b.stopped and b.stop == signal.SIGKILL for b in builders):
        raise Mismatch(f"left behind: {left}\n{printed}")
    for builder in builders:
        if not builder.stopped and rng.random() < 0.5:
            current, history.current = history.current, builder.experiment
            with at(history, builder.side):
                history.build([builder.experiment], builder.words, builder.targets, False, builder.discard, True)
            history.current = current


def _left(history: History) -> set[Path]:
    """What builds have in the state folder only while they run."""
    places = ("leases", "steps", "store/tmp")
    return {path for place in places for path in (history.state / place).glob("*") if path.name != "table"}


def _builders(history: History, rng: random.Random, sides: list[Side]) -> list[Builder]:
    """Who builds what where; at most one of them is stopped."""
    count = rng.choice([2, 2, 3])
    places = [*sides, *rng.choices(sides, k=count)][:count]
    rng.shuffle(places)
    builders = []
    discard = rng.random() < 0.4
    for side in places:
        names = [history.current] if rng.random() < 0.8 else list(side.world.pipelines)
        name = rng.choice(names)
        with at(history, side):
            before, history.current = history.current, name
            targets = history.targets(rng) if rng.random() < 0.25 else []
            history.current = before
        words = ["-j", str(rng.choice(history.jobs))]
        delay = rng.choice([0.0, 0.0, 0.02, 0.1, 0.3]) * rng.random()
        gives_up = discard and rng.random() < 0.7
        look, code = build(side.world, name, targets, discard=gives_up)
        builders.append(Builder(side, name, words, targets, gives_up, delay, look, {code}))
    for builder in builders:
        others = [b for b in builders if b.side is builder.side and b.experiment == builder.experiment and b.discard]
        if not builder.discard and others:  # who comes after one that gave the edits up finds none
            builder.codes.add(build(builder.side.world, builder.experiment, builder.targets, discard=True)[1])
    if history.killing:
        rng.choice(builders).stop = rng.choice([signal.SIGKILL, signal.SIGINT])
    return builders


def _command(history: History, builder: Builder) -> list[str]:
    before, history.current = history.current, builder.experiment
    words = [*builder.words, *(["--discard-edits"] if builder.discard else [])]
    command = history.command([builder.experiment], words, builder.targets)
    history.current = before
    return command


def _run(history: History, rng: random.Random, builders: list[Builder]) -> dict[int, int]:
    """Start all, stop one, wait for all; exit codes by process."""
    begun = time.monotonic()
    for number, builder in enumerate(sorted(builders, key=lambda b: b.delay)):
        time.sleep(max(0.0, builder.delay - (time.monotonic() - begun)))
        printed = history.folder / f"together{number}"
        command = _command(history, builder)
        builder.pid, builder.printed = start(command, builder.side.root, printed, history.waves)
    codes: dict[int, int] = {}
    for builder in builders:
        if builder.stop:
            _stop(history, rng, builder, builders, codes)
    for builder in builders:
        if builder.pid not in codes:
            status = end_of(builder.pid)
            if status is None:
                raise Mismatch(f"a build beside others does not end\n{builder.printed.read_text()}")
            codes[builder.pid] = os.waitstatus_to_exitcode(status)
        interrupted = builder.stop == signal.SIGINT and codes[builder.pid] == INTERRUPTED
        builder.stopped = interrupted or codes[builder.pid] == -signal.SIGKILL
    return codes


def _stop(
    history: History, rng: random.Random, builder: Builder, builders: list[Builder], codes: dict[int, int]
) -> None:
    """Send a builder its signal after some steps have begun, and some time."""
    all_runs = {node.identity for b in builders for node in b.look.nodes.values() if node.runs}
    after_steps = rng.randrange(len(all_runs) + 1)
    pause = rng.random() * rng.choice([0.01, 0.05, 0.3])
    history.tell(f"  after {after_steps} steps and {pause * 1000:.0f} ms")
    log = Path(history.world.log)
    ended, status = 0, 0
    while not ended and log.read_bytes().count(b"\n") < after_steps:
        time.sleep(0.001)
        ended, status = os.waitpid(builder.pid, os.WNOHANG)
    if not ended:
        time.sleep(pause)
        ended, status = os.waitpid(builder.pid, os.WNOHANG)
    if ended:
        codes[builder.pid] = os.waitstatus_to_exitcode(status)
        return
    os.kill(builder.pid, builder.stop)
    history.kills += 1


# The verdict on what ran --------------------------------------------------------------------------------------------


def _looks(builder: Builder, builders: list[Builder]) -> list[Look]:
    """What a builder may come to: two things if another one gives up edits that it keeps."""
    looks = [builder.look]
    if any(b.discard and not builder.discard and _same_place(b, builder) for b in builders):
        side = builder.side
        looks.append(build(side.world, builder.experiment, builder.targets, discard=True)[0])
    return looks


def _same_place(one: Builder, other: Builder) -> bool:
    return one.side is other.side and one.experiment == other.experiment


def _makes(builder: Builder, builders: list[Builder]) -> set[Identity]:
    """The actions that a builder brings to an end whatever the others do."""
    each = [
        {node.identity for node in look.nodes.values() if node.outputs is not None}
        for look in _looks(builder, builders)
    ]
    return set.intersection(*each)


@dataclass
class Count:
    """How often an action runs over all builders: at least, and at most unless a kill loses its trace."""

    line: str
    succeeds: bool
    least: int = 0
    most: int = 0


def _counts(builders: list[Builder], unsure: Mapping[Identity, int]) -> dict[Identity, Count]:
    """An action that succeeds runs once over all, one that fails once for each that needs it."""
    counts: dict[Identity, Count] = {}
    for builder in builders:
        looks = _looks(builder, builders)
        certain = [{node.identity for node in look.nodes.values()} for look in looks]
        for node in {n.identity: n for look in looks for n in look.nodes.values() if n.runs}.values():
            count = counts.setdefault(node.identity, Count(node.name.rstrip("/"), node.outputs is not None))
            surely = not builder.stopped and all(node.identity in one for one in certain)
            count.most = 1 if count.succeeds else count.most + 1
            if surely and node.identity not in unsure:
                count.least = 1 if count.succeeds else count.least + 1
    return counts


def _judge_runs(history: History, builders: list[Builder], ran: Counter[str], printed: str) -> None:
    world = history.world
    counts = _counts(builders, world.unsure)
    least, most = Counter[str](), Counter[str]()
    for count in counts.values():
        least[count.line] += count.least
        most[count.line] += count.most
    killed = [b for b in builders if b.stopped and b.stop == signal.SIGKILL]
    lines = {node.name.rstrip("/") for b in killed for node in b.look.nodes.values() if node.runs}
    missing, more = least - ran, ran - most
    if missing or set(more) - lines or more.total() > sum(b.jobs for b in killed):
        raise Mismatch(
            f"ran and need not: {sorted(more.elements())}\nhad to run and did not: {sorted(missing.elements())}\n"
            f"ran: {sorted(ran.elements())}\n{printed}"
        )
    surplus = ran - least
    done = {identity for b in builders if not b.stopped for identity in _makes(b, builders)}
    for identity in [*world.unsure]:
        if identity in done:
            number = world.unsure.pop(identity)
            if identity in counts and surplus[counts[identity].line]:
                surplus[counts[identity].line] -= 1
                world.losses[number] -= 1
    world.done |= done
    _doubt(
        history, {i: c for i, c in counts.items() if c.succeeds and i not in done}, surplus, sum(b.jobs for b in killed)
    )


def _doubt(history: History, open_ones: Mapping[Identity, Count], surplus: Counter[str], jobs: int) -> None:
    """Actions that only a stopped builder needed have run if they told so; after a kill some of their traces are lost.

    Several of them may have one name (in two worktrees with different code): which of them ran is not known then.
    """
    number, slack = -history.builds, 0
    for line in {count.line for count in open_ones.values()}:
        candidates = [identity for identity, count in open_ones.items() if count.line == line]
        if surplus[line] > 0:
            slack += len(candidates)
            for identity in candidates:
                history.world.unsure.setdefault(identity, number)
    history.world.losses[number] = jobs + (slack if slack > 1 or jobs else 0)


# The verdict on files -----------------------------------------------------------------------------------------------


def _judge_files(history: History, name: str, builders: list[Builder], printed: str) -> None:
    """The files of an experiment in a worktree: what surely was made, and of what may have been, the old or the new."""
    world = history.world
    before, there = world.trees[name], history.lying(name)
    sure, known = _applied(world, name, [(b.look, b.complete) for b in builders if _is_sure(b, builders)])
    every = [(look, not b.targets and 0 in b.codes) for b in builders for look in _looks(b, builders)]
    most, perhaps = _applied(world, name, sorted(every, key=lambda one: (one[0].discard, one[1])))
    killed = any(b.stopped and b.stop == signal.SIGKILL for b in builders)
    history.nothing_lost(name, there, printed)
    rest = history.unknown_rest(name, known, there)
    wrong = {}
    for path in {*there, *sure, *most}:
        allowed = [sure.get(path), most.get(path)] + [None] * (killed and before.get(path) != most.get(path))
        if there.get(path) not in allowed and path not in rest:
            wrong[path] = (there.get(path), allowed)
    if wrong:
        told = "\n".join(f"  {path}: there {found!r}, expected {allowed!r}" for path, (found, allowed) in wrong.items())
        raise Mismatch(f"the files are not those of a clean build\n{told}\n{printed}")
    doubtful = {node for node in {*known, *perhaps} if known.get(node) != perhaps.get(node)}
    for node in doubtful & set(perhaps):
        if all(lies(there, path, data) for path, data in perhaps[node].outputs.items()):
            known[node] = perhaps[node]
    visited = {node for b in builders if _is_sure(b, builders) for node in b.look.nodes}
    world.fuzzy[name] = (world.fuzzy[name] - visited) | doubtful
    world.trees[name], world.known[name] = there, known


def _is_sure(builder: Builder, builders: list[Builder]) -> bool:
    return not builder.stopped and len(_looks(builder, builders)) == 1


def _applied(world: World, name: str, looks: list[tuple[Look, bool]]) -> tuple[dict[str, bytes], dict[str, Known]]:
    """The files and what is known after these builds, one after the other, those that remove stale targets last."""
    tree, known = world.trees[name], world.known[name]
    for look, complete in sorted(looks, key=lambda one: one[1]):
        done = replace(world, trees={**world.trees, name: tree}, known={**world.known, name: known})
        tree, known = after(done, look, complete)
    return dict(tree), dict(known)

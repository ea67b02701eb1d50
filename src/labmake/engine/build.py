"""The suspending scheduler: brings keys up to date, each once, and waits for workers only when nothing else can go on.

One thread decides. Every key that takes more than a look is a task: a generator that yields the keys it waits for. A
task sleeps until all of them are answered; a Run sleeps until a worker has answered. When nothing runs and nothing can
go on, what still waits waits for itself: a cycle.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from labmake.data.slices import split_slice
from labmake.engine.facts import Facts
from labmake.engine.failures import disk_error
from labmake.engine.inputs import needed_by
from labmake.engine.nodes import Made, Remake, Run, WouldRun, fact_text, parse_fact, prepared, visit
from labmake.engine.outputs import remove, touched
from labmake.engine.placing import MOST, Place, place_all
from labmake.engine.plan import Answer, Failed, Result, Unknown
from labmake.engine.questions import Hash, inside_folder, of_file, of_large_file, question, slice_of
from labmake.engine.rulebook import Match
from labmake.engine.runner import Executor, Runner
from labmake.engine.services import Options, Services
from labmake.engine.signals import Signals
from labmake.engine.sourcing import visit_source
from labmake.engine.temps import Temps
from labmake.errors import Cycle, DataChanged, LabmakeError, NoRule, NoSuchKey, StepFailed
from labmake.layout import GENERATED, experiment_of, short
from labmake.model import Fact, Key

COMMIT_EVERY = 256
"""Facts that are written together: a killed build loses at most so many, and finds their traces."""


PASSES = 3
"""How often all is looked at, if temporary targets that are not repeatable are made again in between."""


@dataclass(eq=False)
class Task:
    """A key on its way to its answer."""

    key: Key
    generator: Generator[Any, Any, Any]
    asked: tuple[Key, ...] = ()
    waiting: int = 0
    waiters: list[Task] = field(default_factory=list)


@dataclass
class Outcome:
    """What a build came to: nodes by how they came to be, and the errors where they happened."""

    made: dict[str, Made] = field(default_factory=dict)
    would: dict[str, WouldRun] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    failed: dict[str, LabmakeError] = field(default_factory=dict)
    """node → the error that happened there."""
    skipped: dict[str, str] = field(default_factory=dict)
    """node → the node or key whose failure kept it from being made."""
    interrupted: bool = False

    def count(self, how: str) -> int:
        return sum(made.how == how for made in self.made.values())


LOOK_EVERY = 4
"""Tasks after which a build that still decides looks whether a step has ended."""


class Reached(Protocol):
    """What a change can reach, when everything else is known to be as it was; see engine.wave."""

    @property
    def nodes(self) -> frozenset[str]: ...
    def owner(self, path: str) -> str: ...


class Agreement(Protocol):
    """Whether a build may go on: asked with the nodes that are now to run, when nothing more can be known until a step
    has; False stops. When it is `settled`, it agrees to all that comes."""

    @property
    def settled(self) -> bool: ...
    def __call__(self, nodes: list[str]) -> bool: ...


class Build:
    """One build. `executor` is made when a step has to run; with `reached`, facts answer for all other nodes."""

    def __init__(
        self, services: Services, options: Options, executor: Callable[[], Executor], reached: Reached | None = None
    ) -> None:
        self.services, self.options = services, options
        self.outcome = Outcome()
        self._runner: Runner[Task] = Runner(services, executor, Signals.pipe()[0])
        self._reached = reached
        self.dropped: list[str] = []
        """Targets that their nodes no longer have, each with a fact of its own until it is removed."""
        self._tasks: dict[Key, Task] = {}
        self._ready: deque[tuple[Task, Any]] = deque()
        self._facts = Facts(services.state)
        self._pending: dict[str, str] = {}
        self._placing: list[tuple[Task, Place]] = []
        self._unplaced = 0
        self._stopping = False
        self._signals = 0
        self._temps = Temps(services)
        self._hows: dict[str, str] = {}
        self._decided: dict[str, Run] = {}
        self._undiscussed: list[str] = []
        self.agree: Agreement | None = None

    # What a user asks for ----------------------------------------------------------------------------------------

    def bring(self, keys: Iterable[Key]) -> list[Result]:
        """Bring keys up to date; returns their results in order. Everything that succeeded is recorded."""
        wanted = list(keys)
        try:
            with Signals(self._interrupt):
                for _ in range(PASSES):
                    for key in wanted:
                        self._ask_for(key)
                    self._loop()
                    if self._stopping or not self._temps.came_out_differently():
                        break
                    self._look_again()
        finally:
            self._commit()
        unknown = Unknown("an interrupted build")
        return [self.services.answers.get(key) or self._late_answer(key) or unknown for key in wanted]

    def prepare(self, target: str) -> Run | None:
        """What would run for a target, when what it needs is made; of itself nothing runs. None if that cannot be: why
        is told as any failure, and in the outcome."""
        match = self.services.rulebook.find(target)
        key = f"!{match.node}"
        self._add(key, prepared(self.services, match))
        try:
            with Signals(self._interrupt):
                self._loop()
        finally:
            self._commit()
        result: object = self.services.answers.get(key)
        return result if isinstance(result, Run) else None

    def _look_again(self) -> None:
        """A temporary target that was made again came out differently, and what was fresh by its old content is not."""
        self._commit()
        self._hows.update((node, made.how) for node, made in self.outcome.made.items() if made.how != "fresh")
        self.outcome.made.clear()
        self.services.answers.clear()

    def _ask_for(self, key: Key) -> None:
        """Start what a user asked for; of a temporary target that is its content, which stays."""
        if key.startswith(f"{GENERATED}/") and self.services.rulebook.matches(key):
            self._temps.goals.add(self.services.rulebook.find(key).node)
        self._start(key)

    def close(self) -> None:
        """End the workers. An interrupt that comes now comes too late: their folders would be left behind."""
        with Signals(lambda: None):
            self._runner.close()

    def fact(self, node: str) -> Fact | None:
        """The recorded fact of a node."""
        text = self._facts.get(node)
        return parse_fact(text) if text is not None else None

    @property
    def left(self) -> dict[str, Run | None]:
        """The nodes that are not done, with what shall run for them if that is decided."""
        return {key[1:]: self._decided.get(key[1:]) for key in list(self._tasks) if key.startswith("@")}

    @property
    def is_first(self) -> bool:
        """Whether nothing was ever made in this worktree."""
        return not self._facts

    @property
    def recorded(self) -> list[str]:
        """The nodes of which this worktree has a fact."""
        return list(self._facts)

    # Keys and tasks ----------------------------------------------------------------------------------------------

    def _start(self, key: Key, by: Task | None = None) -> Task | None:
        """The task that will answer `key`, or None if it is answered already; `by` is the task that asks."""
        answers = self.services.answers
        if key in answers:
            return None
        task = self._tasks.get(key)
        if task is not None:
            return task
        if key.startswith("?"):
            return self._add(key, question(self.services, key))
        if key.startswith(f"{GENERATED}/"):
            cut = split_slice(key)
            if cut is not None:
                return self._add(key, slice_of(self.services, *cut))
            if self._reached is not None and self._is_settled(key, self._reached):
                return None
            return self._start_target(key, by)
        cut = split_slice(key)
        if cut is not None and not os.path.exists(self.services.absolute(key)):
            return self._add(key, slice_of(self.services, *cut))
        if not self.options.dry and self.services.stats.is_dear(self.services.absolute(key)):
            return self._add(key, of_large_file(self.services, key))
        answers[key] = of_file(self.services, key)
        return None

    def _start_target(self, path: str, by: Task | None) -> Task | None:
        try:
            match = self.services.rulebook.find(path)
        except LabmakeError as error:
            self._needed_by(error, by)
            self.services.answers[path] = self._failed_here(path, error)
            return None
        node = f"@{match.node}"
        if node in self.services.answers:
            self.services.answers[path] = self._of_node(path, match)
            return None
        return self._tasks.get(node) or self._add(node, self._visit(match))

    def _is_settled(self, path: str, reached: Reached) -> bool:
        """Answer a target that no change can reach from its fact."""
        node = reached.owner(path)
        fact = None if node in reached.nodes else self.fact(node)
        if fact is None:
            return False
        if node not in self.outcome.made:
            made = Made({target: digest for target, (digest, _) in fact.outputs.items()}, "fresh", fact)
            self.outcome.made[node] = made
            self.services.answers[f"@{node}"] = Answer(next(iter(made.outputs.values())))
        self.services.answers[path] = self._of_made(path, self.outcome.made[node])
        return True

    def _visit(self, match: Match, content: bool = False) -> Generator[Any, Any, Any]:
        if self.options.recall is not None:
            return self.options.recall(self.services, match)
        fact = self.fact(match.node)
        if match.rule.address:
            return visit_source(self.services, self.options, match, fact)
        if self.services.rulebook.temps:
            self.services.undecided.add(match.node)
        content = content or (bool(match.rule.options.get("temp")) and match.node in self._temps.goals)
        return visit(self.services, self.options, match, fact, content)

    def _remake(self, nodes: Sequence[str], task: Task) -> None:
        """Have the content of temporary nodes made again for a task, which then gets their results."""
        keys = tuple(f"@{node}" for node in nodes)
        for key in keys:
            if key not in self._tasks:
                match = self.services.rulebook.find(key[1:])
                self._forget_answers(match)
                self._add(key, self._visit(match, content=True))
            self._temps.asked(task.key, [key[1:]])
            self._tasks[key].waiters.append(task)
        task.asked, task.waiting = keys, len(keys)

    def _forget_answers(self, match: Match) -> None:
        paths = tuple(match.outputs.values())
        for key in [key for key in self.services.answers if key.startswith((f"@{match.node}", *paths))]:
            if key in (f"@{match.node}", *paths) or key.startswith(tuple(path for path in paths if path[-1:] == "/")):
                del self.services.answers[key]

    def _remove_temporary(self) -> None:
        """Remove the temporary targets that nobody needs any more, with what the store has of them."""
        for node in self._temps.useless():
            made = self.outcome.made.get(node)
            if made is None or touched(self.services, made.fact):
                continue
            remove(self.services, made.fact)
            absent = {path: (digest, None) for path, digest in made.outputs.items()}
            fact = replace(made.fact, outputs=absent)
            self.outcome.made[node] = replace(made, fact=fact)
            self._facts[node] = self._pending[node] = fact_text(fact)
            for digest in made.outputs.values():
                self.services.blobs.drop(digest, self._temps.living)

    def _add(self, key: Key, generator: Generator[Any, Any, Any]) -> Task:
        task = Task(key, generator)
        self._tasks[key] = task
        self._ready.append((task, None))
        return task

    def _answer(self, key: Key) -> Result:
        """The answer to a key whose task is done."""
        found = self.services.answers.get(key)
        return found if found is not None else self._late_answer(key) or Unknown("an interrupted build")

    def _late_answer(self, key: Key) -> Result | None:
        if not key.startswith(f"{GENERATED}/") or key in self._tasks:
            return None
        match = self.services.rulebook.find(key)
        if f"@{match.node}" not in self.services.answers:
            return None
        answer = self.services.answers[key] = self._of_node(key, match)
        return answer

    def _of_node(self, path: str, match: Match) -> Result:
        """The answer for a target, or for a file inside a folder target, of a node that is done."""
        made = self.outcome.made.get(match.node)
        return self.services.answers[f"@{match.node}"] if made is None else self._of_made(path, made)

    def _of_made(self, path: str, made: Made) -> Result:
        for output, digest in made.outputs.items():
            if path == output or path == output.rstrip("/"):
                return Answer(digest)
            if output.endswith("/") and path.startswith(output):
                return inside_folder(self.services, output, Answer(digest), path[len(output) :])
        raise AssertionError(f"{path} is no output of its node")

    # The loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            while self._ready or self._placing:
                if not self._ready or self._unplaced >= MOST:
                    self._place()
                self._step(*self._ready.popleft())
                if len(self._pending) >= COMMIT_EVERY:
                    self._commit()
                if self._signals > 1:
                    self._runner.kill()
                self._keep_busy()
            if self._stopping:
                self._runner.stop_starting()
            else:
                self._start_steps()
            if self._signals > 1:
                self._runner.kill()
            if self._runner.busy:
                self._ready.extend(self._runner.wait())
                continue
            if self._stopping or not self._tasks:
                break
            self._break_cycle()

    def _place(self) -> None:
        """Place what was asked for meanwhile, all at once."""
        asked, self._placing, self._unplaced = self._placing, [], 0
        items = [item for _, place in asked for item in place.items]
        placed = iter(place_all(self.services.blobs, items, self.options.jobs))
        self._ready.extend((task, [next(placed) for _ in place.items]) for task, place in asked)

    def _keep_busy(self) -> None:
        """Start what can run while the rest is still being decided, and go on with what has ended, unless the price of
        the whole may have to be agreed to first. Batches wait until they are full, or nothing else can be decided."""
        if self._stopping or not self._runner.waiting or not (self.agree is None or self.agree.settled):
            return
        if self._runner.start(full=True) or not len(self._ready) % LOOK_EVERY:
            self._ready.extendleft(reversed(self._runner.wait(0.0)))

    def _step(self, task: Task, value: Any) -> None:
        """Let a task go on until it waits or is done."""
        if self._tasks.get(task.key) is not task:
            return  # it was failed to break a cycle
        try:
            while True:
                wanted = task.generator.send(value)
                if isinstance(wanted, Run):
                    self._submit(task, wanted)
                    return
                if isinstance(wanted, Hash):
                    self._runner.hash(task, wanted.path, self.options.jobs)
                    return
                if isinstance(wanted, Remake):
                    self._remake(wanted.nodes, task)
                    return
                if isinstance(wanted, Place):
                    self._placing.append((task, wanted))
                    self._unplaced += len(wanted.items)
                    return
                if self._wait_for(task, wanted):
                    return
                value = [self._answer(key) for key in wanted]
        except StopIteration as stop:
            self._done(task, stop.value)
        except LabmakeError as error:
            if not task.key.startswith("@"):
                self._needed_by(error, task)
            self._done(task, self._failed_here(task.key, error))
        except OSError as error:
            self._done(task, self._failed_here(task.key, disk_error(error)))

    def _wait_for(self, task: Task, keys: Sequence[Key]) -> bool:
        """Make `task` wait for what is not answered yet; False if all is."""
        if self.services.rulebook.temps:
            self._temps.asked(task.key, keys)
        others = {other for key in keys if (other := self._start(key, task)) is not None}
        if not others:
            return False
        task.asked, task.waiting = tuple(keys), len(others)
        for other in others:
            other.waiters.append(task)
        return True

    def _done(self, task: Task, result: Any) -> None:
        key = task.key
        if key.startswith("@"):
            result = self._node_done(key[1:], result)
        self.services.answers[key] = result
        del self._tasks[key]
        if self.services.rulebook.temps:
            self._end_reading(key, result)
        for waiter in task.waiters:
            waiter.waiting -= 1
            if waiter.waiting == 0:
                self._ready.append((waiter, [self._answer(k) for k in waiter.asked]))

    def _end_reading(self, key: Key, result: Any) -> None:
        node = key.removeprefix("@")
        self.services.undecided.discard(node)
        if key.startswith("@") and node in self.outcome.made:
            made = self.outcome.made[node]
            self._temps.made(node, made.outputs, made.how == "fresh")
        self._temps.ended(key, isinstance(result, Answer))
        if not self.options.dry:
            self._remove_temporary()

    def _node_done(self, node: str, result: Any) -> Result:
        """Record what a node came to; its answer for others."""
        self._decided.pop(node, None)
        if isinstance(result, Made):
            if result.how == "fresh" and node in self._hows:
                result = replace(result, how=self._hows[node])
            self.outcome.made[node] = result
            if self.options.recall is None:
                self.services.state.drop_failures([node])
            text = fact_text(result.fact)
            before = self._facts.get(node)
            if before != text:
                if before is not None and result.fact.action not in before:  # the same action has the same targets
                    self._leave_rest(parse_fact(before), result.fact)
                    self._note_use(node, result.fact.action)
                self._facts[node] = self._pending[node] = text
            return Answer(next(iter(result.outputs.values())))
        if isinstance(result, WouldRun):
            self.outcome.would[node] = result
            return Unknown(node)
        if isinstance(result, Unknown):
            self.outcome.unknown[node] = result.after
            return result
        if result.root != node:
            self.outcome.skipped[node] = result.root
            if result.root not in self.outcome.failed:
                self._failed_here(result.root, result.error)  # a file or slice: no node of its own tells it
        return Failed(result.error, result.root)

    def _leave_rest(self, before: Fact | None, now: Fact) -> None:
        """Keep a fact of each target that a node no longer has: the next complete build removes it, whoever that is."""
        if before is None:
            return
        for path in before.outputs.keys() - now.outputs.keys():
            if path not in self._facts:
                rest = replace(before, node=path, rule="", groups=(), outputs={path: before.outputs[path]})
                self._facts[path] = self._pending[path] = fact_text(rest)
                self.dropped.append(path)

    def _note_use(self, node: str, now: str) -> None:
        """Tell the store that what this worktree had until now was in use, unless it is still the action `now`."""
        if self.options.dry or now in self._facts.get(node, now):
            return
        fact = self.fact(node)
        if fact is not None:
            outputs = [digest for digest, _ in fact.outputs.values()]
            self.services.blobs.note_use(outputs if fact.action.startswith("source ") else [fact.action])

    def _failed_here(self, key: Key, error: LabmakeError) -> Failed:
        """An error that happened at this key: it is told once, and kept for `labmake failures`."""
        node = key.removeprefix("@")
        if node not in self.outcome.failed:
            self.outcome.failed[node] = error
            if key.startswith("@") and isinstance(error, StepFailed) and not self.options.dry:
                self.services.state.put_failures({node: str(error)})
            self.services.reporter.failed(node, error)
        if isinstance(error, DataChanged) or self.options.fail_fast:
            self._stopping = True
        return Failed(error, node)

    def _needed_by(self, error: LabmakeError, task: Task | None) -> None:
        """Say in an error which target's rule first asked for what failed."""
        while task is not None and not task.key.startswith("@"):
            task = task.waiters[0] if task.waiters else None
        if task is not None:
            where = self.services.rulebook.find(task.key[1:]).rule.where
            needed_by(error, self._shown(task.key), where)

    def _break_cycle(self) -> None:
        """Nothing runs and nothing is ready: find the tasks that wait for each other, and fail one of them."""
        task = next(iter(self._tasks.values()))
        seen: list[Task] = []
        while task not in seen:
            seen.append(task)
            task = next(other for key in task.asked if (other := self._waits_on(key)) is not None)
        ring = [*seen[seen.index(task) :], task]
        names = [self._shown(t.key) for t in ring if t.key.startswith("@")]
        where = self.services.rulebook.find(next(t.key for t in ring if t.key.startswith("@"))[1:]).rule.where
        error = Cycle(
            "a target needs itself",
            [("path", " → ".join(names or [self._shown(t.key) for t in ring]))],
            ["take one of these inputs out, or give the result another name"],
            where,
        )
        task.generator.close()
        self._done(task, self._failed_here(task.key, error))

    def _waits_on(self, key: Key) -> Task | None:
        task = self._tasks.get(key)
        if task is None and key.startswith(f"{GENERATED}/"):
            try:
                task = self._tasks.get(f"@{self.services.rulebook.find(key).node}")
            except LabmakeError:
                return None
        return task

    def _shown(self, key: Key) -> str:
        path = key.removeprefix("@")
        return short(path, experiment_of(path) or "") if path.startswith(GENERATED) else path

    # Running steps -----------------------------------------------------------------------------------------------

    def _start_steps(self) -> None:
        new, self._undiscussed = self._undiscussed, []
        if new and not (self.agree is None or self.agree.settled or self.agree(new)):
            self._stopping = self.outcome.interrupted = True
            self._runner.stop_starting()
        else:
            self._runner.start()

    def _submit(self, task: Task, run: Run) -> None:
        if self._stopping:
            return
        self._decided[task.key[1:]] = run
        self._temps.runs(task.key)
        self._undiscussed.append(task.key[1:])
        refusal = self._runner.submit(task, run)
        if refusal is not None:
            refusal.where = self.services.rulebook.find(task.key[1:]).rule.where
            task.generator.close()
            self._done(task, self._failed_here(task.key, refusal))

    def _interrupt(self) -> None:
        """The first signal stops starting, the second stops what runs. A build that only recalls ends at once."""
        if self.options.recall is not None:
            raise KeyboardInterrupt
        self._signals += 1
        self._stopping = self.outcome.interrupted = True
        if self._signals == 1:
            self.services.reporter.note("interrupted: running steps are finished; again to stop them now")

    def _commit(self) -> None:
        if not self.options.dry:
            self.services.state.put_facts(self._pending)
            self._pending = {}
        self.services.state.commit()

    def forget(self, nodes: Iterable[str]) -> None:
        """Drop the facts of nodes that no longer exist."""
        gone = list(nodes)
        for node in gone:
            self._note_use(node, "none")
            self._facts.pop(node, None)
        self.services.state.drop_facts(gone)
        self.services.state.commit()


def is_missing(result: object) -> bool:
    """Whether a result says that a target does not exist: no rule, no such file or no such key."""
    return isinstance(result, Failed) and isinstance(result.error, (NoRule, NoSuchKey))

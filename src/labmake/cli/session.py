"""A session: the project's rooms opened for one command, and what the words of a command line mean."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labmake.documents.rules import document_rules
from labmake.engine.build import Build, Reached
from labmake.engine.jobs import variables
from labmake.engine.patterns import wildcards
from labmake.engine.rulebook import EXP, Match, Rulebook, RuleFile, nearest, no_experiment
from labmake.engine.runner import Executor
from labmake.engine.services import Options, Reporter, Services
from labmake.environment.code_files import CodeReader
from labmake.environment.environments import Environments
from labmake.errors import LabmakeError, Misuse, NoRule, RuleError
from labmake.executors.local import Local
from labmake.executors.resources import this_machine
from labmake.layout import (
    Project,
    expand,
    experiment_of,
    experiments,
    find_project,
    generated_folder,
    short,
    split_experiment,
)
from labmake.loading import LookedAt, load
from labmake.model import Json, Rule
from labmake.seams import RealClock
from labmake.store.blobs import Blobs
from labmake.store.sharing import using
from labmake.store.state import State
from labmake.store.stats import StatCache

SKEW = 2.0
"""Seconds by which installed files must lie back: their file system may be another, with a clock of its own."""


class _Memo(MutableMapping[str, Json]):
    """The state's memo as a mapping, for the code reader."""

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, key: str) -> Json:
        value = self._state.memo_get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Json) -> None:
        self._state.memo_put(key, value)

    def __delitem__(self, key: str) -> None:
        self._state.memo_put(key, None)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass
class Session:
    """An opened project, the experiment that is meant, and the folder the user stands in."""

    services: Services
    experiment: str
    here: Path

    @property
    def project(self) -> Project:
        return self.services.project

    def build(self, options: Options, reached: Reached | None = None) -> Build:
        """A build with these options, with workers on this machine; of what a change has `reached` alone, if given."""

        return Build(self.services, options, lambda: self.executor(options.jobs), reached)

    def executor(self, jobs: int, part: str = "") -> Executor:
        """Workers on this machine, `jobs` at once; with step folders in a `part` of this process's folder for them."""
        state = self.project.state
        told = self.services.environments.told_to_workers()
        return Local(state / "steps", state / "store", this_machine(jobs), jobs, variables(self.project), told, part)


@contextmanager
def session(
    experiment: str | None = None,
    reporter: Reporter | None = None,
    start: Path | None = None,
    words: Iterable[str] = (),
) -> Iterator[Session]:
    """Open the project around `start` (the working directory); `words` are the targets that are asked for.

    Raises Misuse outside of a project and inside a step.
    """
    if os.environ.get("LABMAKE_IN_STEP"):
        raise Misuse(
            "labmake was started inside a step",
            [("folder", os.getcwd())],
            [
                "a step cannot build: name what it needs as inputs of its rule",
                "leave the shell of `labmake shell` first",
            ],
        )
    here = Path(os.path.realpath(start or Path.cwd()))
    project = find_project(here)
    known = experiments(project)
    current = current_experiment(project, known, here, experiment, words)
    with using(project.state / "store", _wait_for_collection):
        state = State.open(project.database)
        try:
            root = os.fsencode(project.root).hex()  # by which `labmake gc` knows that a worktree is gone
            if state.memo_get("root") != root:
                state.memo_put("root", root)
            services = open_services(project, known, state)
            if reporter is not None:
                services.reporter = reporter
            try:
                yield Session(services, current, here)
                state.commit()
            finally:
                services.blobs.close()
        finally:
            state.close()


def _wait_for_collection() -> None:
    sys.stderr.write("waiting until labmake gc has done\n")


def open_services(project: Project, known: Iterable[str], state: State, beside: Services | None = None) -> Services:
    """The engine's rooms for a project; `beside` those of the worktree if `project` is another state of its files:
    they share the store and what was read from files, and folders that Python is told to look in are the same ones."""
    clock = RealClock()
    stats = StatCache(state, project.root, clock)
    blobs = beside.blobs if beside else Blobs(project.state / "store", state)
    memo = _Memo(beside.state if beside else state)
    code = CodeReader(project.root, stats.digest, memo, keep=blobs.put_bytes)
    if beside is not None:
        code.editable = beside.code.editable

    looked = LookedAt()

    def read(name: str) -> RuleFile:
        own = load(project, name, looked)
        general = book.file("").rules if name else ()
        return RuleFile(own.rules, own.groups, document_rules(project, name, (*own.rules, *_of(general, name))))

    def settled(stamp: int) -> bool:
        return stamp < stats.clock() - int(SKEW * 1e9)

    book = Rulebook(known, read)
    seen = looked.paths, looked.variables
    around = Environments(str(project.root), code, stats.digest, memo, settled, variables(project), *seen)
    services = Services(project, state, blobs, stats, code, book, around, clock)
    services.looked, services.variables = looked.paths, looked.variables
    services.began = clock.file_system_now(project.database.parent)
    return services


def _of(general: Iterable[Rule], experiment: str) -> Iterator[Rule]:
    """The rules of rules.py that make results of an experiment, with its name filled in, for documents' values."""
    from dataclasses import replace

    from labmake.engine.patterns import fill

    for rule in general:
        outputs = {name: fill(pattern, {EXP: experiment}) for name, pattern in rule.outputs.items()}
        if all(path.startswith(generated_folder(experiment) + "/") for path in outputs.values()):
            yield replace(rule, outputs=outputs)


def current_experiment(
    project: Project, known: list[str], here: Path, asked: str | None, words: Iterable[str] = ()
) -> str:
    """The experiment that a command is about: -e, else that of the working directory, else of the branch, else the only
    one, else that of the first target if all targets name theirs; "" without experiments. Raises Misuse if that leaves
    several."""
    if asked is not None:
        found = [name for name in known if name == asked] or [name for name in known if asked.lower() in name.lower()]
        if len(found) != 1:
            raise Misuse(
                f"{'no experiment is' if not found else 'several experiments are'} called {asked}",
                [("experiments", "\n".join(found or known) or "none")],
                ["give the name, or a part that only one has"],
            )
        return found[0]
    if not known:
        return ""
    parts = here.relative_to(project.root).parts if here.is_relative_to(project.root) else ()
    if len(parts) > 1 and parts[0] in ("scripts", "generated") and parts[1] in known:
        return parts[1]
    branch = current_branch(project)
    if branch in known:
        return branch
    if len(known) == 1:
        return known[0]
    named = [_named_experiment(project, here, word) for word in words]
    if named and all(name in known for name in named):
        return named[0]
    raise Misuse(
        "it is not clear which experiment is meant",
        [("branch", branch or "none"), ("experiments", "\n".join(known))],
        ["go into its folder, check out its branch, or name it: -e NAME"],
    )


def _named_experiment(project: Project, here: Path, word: str) -> str:
    """The experiment in `generated/<experiment>/…` or `<experiment>:…`, "" if a word names none."""
    before, colon, _ = word.partition(":")
    path = os.path.relpath(here / word, project.root)
    return before if colon else (experiment_of(path) or "") if path.startswith("generated/") else ""


def current_branch(project: Project) -> str:
    """The branch that is checked out; "" without git or with a detached head."""
    import subprocess

    try:
        said = subprocess.run(
            ["git", "symbolic-ref", "--quiet", "--short", "HEAD"],
            cwd=project.root,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return said.stdout.strip()


# What is asked for -------------------------------------------------------------------------------------------------


def default_targets(opened: Session) -> list[str]:
    """All documents and all rules without wildcards of the current experiment, unless default=False."""
    rulebook, experiment = opened.services.rulebook, opened.experiment
    targets: list[str] = []
    for rule in rulebook.rules(experiment):
        if rule.options.get("default") is False or rule.options.get("temp"):
            continue
        if any(name != EXP for name in wildcards(next(iter(rule.outputs.values())))):
            continue
        targets += Match(rule, {}, experiment).outputs.values()
    return list(dict.fromkeys(target for target in targets if _is_mine(rulebook, target)))


def _is_mine(rulebook: Rulebook, target: str) -> bool:
    """Whether a target has a rule of its own choosing; a built-in rule that gives way does not count twice."""
    try:
        rulebook.find(target)
    except NoRule:
        return False
    return True


def resolve(opened: Session, words: Iterable[str]) -> list[str]:
    """The project paths of targets that a command line names."""
    return list(dict.fromkeys(path for word in words for path in resolve_one(opened, word)))


def resolve_one(opened: Session, word: str) -> list[str]:
    """What a word of the command line means: a path from the working directory, a group, a short path, a unique stem.

    Raises Misuse if it lies outside of the project or means two things, NoRule if it means nothing.
    """
    services, experiment = opened.services, opened.experiment
    groups = {**services.rulebook.file("").groups, **services.rulebook.file(experiment).groups}
    if word in groups:
        return list(groups[word][0])
    other = split_experiment(word)
    if other is not None and other[0] in services.rulebook.experiments:
        return [expand(word, experiment)]
    found: list[str] = []
    inside = _from_here(opened, word)
    if inside is not None and inside.startswith("generated/") and _exists(services.rulebook, inside):
        found.append(inside)
    if not word.startswith("/") and not inside_only(word):
        for candidate in (word, word + "/"):
            path = expand(candidate, experiment)
            if path.startswith("generated/") and _exists(services.rulebook, path) and path not in found:
                found.append(path)
                break
    found = found or by_stem(opened, word)
    if len(found) == 1:
        return found
    if found:
        targets = [("target", short(path, experiment)) for path in found]
        raise Misuse(f"{as_shown(word)} means several targets", targets, ["give more of the path"])
    raise no_target(opened, word, inside)


def step_of(opened: Session, target: str) -> Match:
    """The match of the one step that makes what a word names. Raises Misuse, and what resolving it raises."""
    paths = resolve_one(opened, target)
    matches = {found.node: found for found in map(opened.services.rulebook.find, paths)}
    if len(matches) > 1:
        names = "\n".join(short(node, opened.experiment) for node in matches)
        raise Misuse(f"{as_shown(target)} means several targets", [("targets", names)], ["name one of them"])
    (match,) = matches.values()
    if match.rule.address:
        raise Misuse(
            f"{short(match.node, match.experiment)} is a source: no step makes it",
            [("comes from", match.rule.address), ("rule", match.rule.where)],
            ["name a target that a step makes"],
        )
    return match


def as_shown(word: str) -> str:
    """A word of the command line in one line of an error."""
    return (word if len(word) < 200 and word.isprintable() and word else repr(word[:200])) + " …" * (len(word) >= 200)


def inside_only(word: str) -> bool:
    """Whether a word can only be a path from the working directory."""
    return word.startswith(("./", "../", "~"))


def _from_here(opened: Session, word: str) -> str | None:
    """The project path of a path from the working directory, or None outside of the project."""
    whole = os.path.normpath(opened.here / os.path.expanduser(word))
    root = str(opened.project.root)
    if not whole.startswith(root + os.sep):
        return None
    return whole[len(root) + 1 :] + ("/" if word.endswith("/") else "")


def _exists(rulebook: Rulebook, path: str) -> bool:
    try:
        rulebook.find(path)
    except NoRule:
        return False
    except RuleError:
        return True
    return True


def by_stem(opened: Session, word: str) -> list[str]:
    """The targets without wildcards whose name, or name without suffix, is `word`; known ones with wildcards too."""
    rulebook, experiment = opened.services.rulebook, opened.experiment
    literal = [
        path
        for rule in rulebook.rules(experiment)
        if not any(name != EXP for name in wildcards(next(iter(rule.outputs.values()))))
        for path in Match(rule, {}, experiment).outputs.values()
    ]
    prefix = generated_folder(experiment) + "/"
    known = [node for node in opened.services.state.facts() if node.startswith(prefix)]
    found = [p for p in dict.fromkeys([*literal, *known]) if _name(p) == word] or [
        p for p in dict.fromkeys([*literal, *known]) if re.sub(r"\.[^.]+$", "", _name(p)) == word
    ]
    return [path for path in found if _exists(rulebook, path)]


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def no_target(opened: Session, word: str, inside: str | None) -> LabmakeError:
    """The error for a word that names no target."""
    experiment = opened.experiment
    other = split_experiment(word)
    if other is not None and opened.services.rulebook.experiments:
        return no_experiment(word, other[0], opened.services.rulebook.experiments)
    patterns = {
        short(pattern, experiment): rule.where
        for rule in opened.services.rulebook.rules(experiment)
        for pattern in rule.outputs.values()
    }
    facts: list[tuple[str, object]] = [
        ("nearest", f"{pattern}   {patterns[pattern]}") for pattern in nearest(word, patterns)
    ]
    if inside is None and (word.startswith(("/", "../", "~")) or word == ".."):
        return Misuse(
            f"{as_shown(word)} lies outside of the project",
            [("project", opened.project.root)],
            ["ask for something under generated/"],
        )
    if inside is not None and os.path.exists(opened.project.root / inside) and not inside.startswith("generated/"):
        return NoRule(
            f"{as_shown(word)} is a source file: nothing makes it", facts, ["ask for something under generated/"]
        )
    return NoRule(
        f"no rule makes {as_shown(word)}",
        [("experiment", experiment or "none"), *facts]
        if facts
        else [("experiment", experiment or "none"), ("rules", "none")],
        ["correct the name, or write a rule for it"],
    )

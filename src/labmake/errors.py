"""Every error labmake shows: one tree, three parts (what happened, the facts, what to do), one formatter.

    LabmakeError             exit code
    ├── Misuse               2   the command line or the project cannot be used so
    ├── RuleError            2   a rule file, plan or document says something that cannot be
    │   ├── NoRule           2   nothing makes the target that was asked for
    │   ├── TwoRules         2   more than one rule makes it
    │   ├── NoSuchKey        2   a slice names an element that its file does not have
    │   └── Cycle            2   a target needs itself
    ├── StepFailed           1   a step ran and did not succeed, or something it needs did not
    ├── Edited               3   a file in a target's place was edited; it is kept
    ├── DataChanged          4   data from outside are not what hashes.txt records
    └── StoreError           5   the store or the disk below it cannot be read or written

130 means interrupted. A build that ends with several kinds of errors exits with 1 if a step failed, else with the
largest of their codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from labmake.frozen import frozen

Facts = Sequence[tuple[str, object]]


@frozen
class Where:
    """A place in a user's file. `line` counts from 1; 0 means the whole file."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class LabmakeError(Exception):
    """What happened, the facts as (label, value) pairs, what to do, and where the user wrote it.

    A value with several lines is shown as an indented block. `todo` holds one line per advice.
    """

    code = 1

    def __init__(
        self, what: str, facts: Facts = (), todo: str | Iterable[str] = (), where: Where | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.facts: list[tuple[str, object]] = list(facts)
        self.todo: list[str] = [todo] if isinstance(todo, str) else list(todo)
        self.where = where

    def __str__(self) -> str:
        return format_error(self)


class Misuse(LabmakeError):
    code = 2


class RuleError(LabmakeError):
    code = 2


class NoRule(RuleError):
    pass


class TwoRules(RuleError):
    pass


class NoSuchKey(RuleError):
    pass


class Cycle(RuleError):
    pass


class StepFailed(LabmakeError):
    code = 1


class Edited(LabmakeError):
    code = 3


class DataChanged(LabmakeError):
    code = 4


class StoreError(LabmakeError):
    code = 5


class Restart(BaseException):
    """No error: this command will run rule files and has to start again with a fixed hash seed; nothing was done."""


INTERRUPTED = 130


def exit_code(errors: Iterable[LabmakeError]) -> int:
    """The exit code of a build that ended with these errors; 0 if there are none."""
    codes = {error.code for error in errors}
    return 0 if not codes else 1 if 1 in codes else max(codes)


def printable(value: object) -> str:
    """`value` as text in which control characters, lone surrogates and the like are escaped; newlines stay."""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(
        c if c == "\n" or c == "\t" or c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )


def format_error(error: LabmakeError) -> str:
    """The three parts as a person reads them: the facts aligned, advice behind an arrow."""
    lines = [printable(error.what)]
    facts = list(error.facts)
    if error.where is not None:
        facts.insert(0, ("at", error.where))
    width = max((len(label) for label, _ in facts), default=0)
    for label, value in facts:
        first, *rest = printable(value).split("\n")
        if rest:
            lines.append(f"  {label}:" if label else "")
            lines.extend(f"    {line}" for line in (first, *rest))
        else:
            lines.append(f"  {label.ljust(width)}  {first}".rstrip())
    lines.extend(f"  → {printable(advice)}" for advice in error.todo)
    return "\n".join(lines)

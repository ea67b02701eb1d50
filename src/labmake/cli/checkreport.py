"""What a check tells: for people, lines on stdout; for programs, events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from labmake.cli.events import Events, parts, rounded
from labmake.cli.progress import Progress
from labmake.engine.causes import ADVICE
from labmake.engine.check import Verdict, recorded_on
from labmake.engine.evidence import Difference
from labmake.engine.outside import Strays
from labmake.engine.unasked import Unasked
from labmake.errors import StepFailed, format_error, printable
from labmake.layout import short

MOST = 8
"""Paths that are told of one kind, and targets that are left out for one reason."""


@dataclass
class Report:
    """Tells verdicts as they come, and the sum at the end."""

    experiment: str
    told: Progress | Events
    counts: Counter[str] = field(default_factory=Counter)
    left: list[tuple[str, str, float | None]] = field(default_factory=list)
    unread: list[Unasked] = field(default_factory=list)
    strayed: int = 0
    codes: set[int] = field(default_factory=set)
    """Exit codes of what was found; 1 goes before all others, as at the end of a build."""

    def note(self, text: str) -> None:
        """Anything else."""
        if isinstance(self.told, Events):
            self.told.note(text)
        else:
            click.echo(text, err=True)

    def checking(self, count: int) -> None:
        """How many steps are run twice now."""
        self.note(f"checking {count} step{'s' * (count != 1)}: each runs twice, apart from the results")

    def left_out(self, node: str, why: str, seconds: float | None = None) -> None:
        """A target that is not checked; told at the end."""
        self.left.append((node, why, seconds))

    def unasked(self, one: Unasked) -> None:
        """A rule that nothing asks for; told at the end."""
        self.unread.append(one)

    def verdict(self, verdict: Verdict) -> None:
        """What was found of one step."""
        self.counts[verdict.word] += 1
        if verdict.error is not None:
            self.codes.add(verdict.error.code)
        elif verdict.word == "differs":
            self.codes.add(StepFailed.code)
        strays = verdict.strays
        self.strayed += bool(strays.read or strays.listed or strays.wrote or strays.connected)
        if isinstance(self.told, Events):
            self._send(self.told, verdict)
        else:
            self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        subject = verdict.subject
        name = printable(short(subject.node, self.experiment))
        if verdict.error is not None:
            click.echo(f"failed    {name}")
            click.echo(f"error: {format_error(verdict.error)}")
            return
        where = f"   {subject.match.rule.where}" if verdict.word == "differs" or _hints(verdict.strays) else ""
        click.echo(f"{verdict.word:<9} {name}  {verdict.seconds:.1f} s{where}")
        if verdict.recorded:
            click.echo(f"  both runs are the same, but not what was recorded on {recorded_on(verdict)}:")
        if verdict.lost:
            click.echo("  what was recorded is another result, which the store no longer has")
        for one in (*verdict.differences, *verdict.recorded):
            click.echo(f"  {printable(one.place)}: {printable(one.what)}")
            for line in one.lines:
                click.echo(f"    {printable(line)}")
        if verdict.word == "differs":
            for cause in verdict.causes or ["not known"]:
                click.echo(f"  likely cause: {cause}" + (f"\n    → {ADVICE[cause]}" if cause in ADVICE else ""))
        for kind, words, advice in _hints(verdict.strays):
            click.echo(f"  {kind}: {_some(words)}\n    → {advice}")

    def _send(self, events: Events, verdict: Verdict) -> None:
        strays = verdict.strays
        events.target(
            "checked",
            verdict.subject.node,
            result=verdict.word,
            seconds=rounded(verdict.seconds),
            where={"file": verdict.subject.match.rule.where.file, "line": verdict.subject.match.rule.where.line},
            causes=list(verdict.causes),
            differences=[_fields(one) for one in verdict.differences],
            recorded=None
            if not verdict.made
            else "lost"
            if verdict.lost
            else "differs"
            if verdict.recorded
            else "same",
            from_recorded=[_fields(one) for one in verdict.recorded],
            read=list(strays.read),
            listed=list(strays.listed),
            wrote=list(strays.wrote),
            connected=list(strays.connected),
            unused=list(strays.unused),
            looked=strays.looked,
            error=parts(verdict.error) if verdict.error is not None else None,
        )

    def end(self, code: int, seconds: float) -> int:
        """Tell what was left out, the rules that nothing asks for, and the sum; the exit code."""
        self.codes.add(code)
        code = StepFailed.code if StepFailed.code in self.codes else max(self.codes)
        if isinstance(self.told, Events):
            for node, why, took in self.left:
                self.told.target("left-out", node, why=why, expected=rounded(took))
            for one in self.unread:
                where = {"file": one.rule.where.file, "line": one.rule.where.line}
                self.told.tell("unasked-rule", target=one.target, why=one.why, where=where)
            words = {word: self.counts[word] for word in ("same", "differs", "failed")}
            self.told.summary({**words, "left_out": len(self.left), "strayed": self.strayed}, seconds, code)
            return code
        for why in dict.fromkeys(why for _, why, _ in self.left):
            names = [
                short(node, self.experiment) + (f" ({took:.0f} s)" if took is not None else "")
                for node, reason, took in self.left
                if reason == why
            ]
            click.echo(f"left out  {_some(names)}: {why}")
        for one in self.unread:
            click.echo(f"unasked   {printable(one.target)}: {one.why}   {one.rule.where}")
        click.echo(self._sum(seconds))
        return code

    def _sum(self, seconds: float) -> str:
        words = {"same": "the same", "differs": "differ", "failed": "failed"}
        said = [f"{self.counts[word]} {text}" for word, text in words.items() if self.counts[word]]
        if self.left:
            said.append(f"{len(self.left)} left out")
        if self.strayed:
            said.append(f"{self.strayed} strayed out of the step folder")
        return f"{', '.join(said) or 'nothing to check'} ({seconds:.1f} s)"


def _fields(one: Difference) -> dict[str, Any]:
    return {"place": one.place, "what": one.what, "lines": list(one.lines), "causes": list(one.causes)}


def _hints(strays: Strays) -> list[tuple[str, Sequence[str], str]]:
    """What a step strayed to: in words, which, and what to do."""
    found: list[tuple[str, Sequence[str], str]] = [
        (
            "read outside of its folder",
            strays.read,
            "an undeclared input: make it a source(…) or an input of the rule, or code=[…] if it is a program's",
        ),
        ("listed outside of its folder", strays.listed, "name the files as inputs: glob(…), find(…) or a source(…)"),
        ("wrote outside of its folder", strays.wrote, "write to the outputs, and what is temporary to TMPDIR"),
        ("connected to", strays.connected, "fetch it with a source(…), which pins its hash"),
        ("never opened", strays.unused, "perhaps an input that it does not need: it reruns when that changes"),
    ]
    return [(kind, words, advice) for kind, words, advice in found if words]


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - MOST} more" if len(words) > MOST else ""
    return printable(", ".join(words[:MOST])) + more

"""What `build -n` tells: what would be made, why, for how long, and what is not known before something has run."""

from __future__ import annotations

from collections.abc import Iterator

import click

from labmake.cli.events import Events, rounded
from labmake.cli.session import Session
from labmake.cli.units import about
from labmake.engine.build import Build
from labmake.engine.patterns import fill
from labmake.engine.plan import Unknown
from labmake.engine.rulebook import Match
from labmake.engine.services import Services
from labmake.engine.times import Times
from labmake.errors import LabmakeError
from labmake.layout import expand, short
from labmake.model import Each, Find


def tell_foreseen(opened: Session, build: Build, times: Times) -> None:
    """Tell what a dry build found, one target a line, and a line of counts."""
    outcome = build.outcome
    for node, would in outcome.would.items():
        word = "would run" if would.how == "run" else "would restore"
        _line(opened, word, node, would.why, _time(times, node) if would.how == "run" else "")
    for node, after in outcome.unknown.items():
        _line(opened, "then, maybe", node, f"after {short(after, opened.experiment)}", _time(times, node))
    families = dict(of_unknown_number(opened.services, build))
    for pattern, after in families.items():
        each = times.typical(pattern)
        time = f"   about {about(each)} each" if each is not None else ""
        _line(opened, "then unknown", pattern, f"how many, after {short(after, opened.experiment)}", time)
    runs = [node for node, would in outcome.would.items() if would.how == "run"]
    unknown = f", then up to {len(outcome.unknown)} more that depend on their results" if outcome.unknown else ""
    more = ", and others whose number is not known yet" if families else ""
    counts = (
        f"{len(runs)} would run, {len(outcome.would) - len(runs)} from the store, {outcome.count('fresh')} unchanged"
    )
    click.echo(counts + unknown + more + _total(build, times, runs))


def _line(opened: Session, word: str, node: str, why: str, time: str = "") -> None:
    click.echo(f"{word.ljust(13)} {short(node, opened.experiment)}   {why}{time}")


def _time(times: Times, node: str) -> str:
    seconds = times.expected(node)
    return f"   about {about(seconds)}" if seconds else ""


def _total(build: Build, times: Times, runs: list[str]) -> str:
    """The wall clock of all that is named, which is less than that of all that will run."""
    rest = times.rest(dict.fromkeys([*runs, *build.outcome.unknown]), build.options.jobs)
    if not rest.seconds:
        return ""
    untimed = f", without {rest.untimed} that were never timed" if rest.untimed else ""
    return f"; about {about(rest.seconds)}{untimed}"


def of_unknown_number(services: Services, build: Build) -> Iterator[tuple[str, str]]:
    """(pattern, what has to run first) of the targets of which a dry build could not know how many there will be."""
    for node in build.outcome.unknown:
        match = services.rulebook.find(node)
        if match.rule.step is None:
            continue
        for spec in match.rule.step.inputs.values():
            for pattern, key in _questions(match, spec):
                answer = services.answers.get(key)
                if isinstance(answer, Unknown):
                    yield pattern, answer.after


def _questions(match: Match, spec: object) -> Iterator[tuple[str, str]]:
    """The pattern of an input of unknown length, and each key that decides the length."""

    def whole(written: str) -> str:
        return expand(fill(written, match.values), match.rule.home)

    try:
        if isinstance(spec, Find):
            yield whole(spec.pattern), f"?find {whole(spec.pattern)}"
        elif isinstance(spec, Each):
            for values in spec.over.values():
                if isinstance(values, (str, Find)):
                    kind, over = ("keys", values) if isinstance(values, str) else ("find", values.pattern)
                    yield whole(spec.pattern), f"?{kind} {whole(over)}"
    except LabmakeError:
        return  # told where the rule is planned


def send_foreseen(build: Build, events: Events, times: Times) -> None:
    """The same as events."""
    outcome = build.outcome
    for node, would in outcome.would.items():
        expected = times.expected(node) if would.how == "run" else None
        events.target("would", node, how=would.how, why=would.why, expected=rounded(expected))
    for node, after in outcome.unknown.items():
        events.target("unknown", node, after=after, expected=rounded(times.expected(node)))
    for pattern, after in dict(of_unknown_number(build.services, build)).items():
        events.target("unknown-number", pattern, after=after, expected=rounded(times.typical(pattern)))

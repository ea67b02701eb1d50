"""`labmake build --set PATTERN NAME=VALUE…`: what the command line says of resources, as settings of a build."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from labmake.api import LATER, OPTIONS
from labmake.cli.session import Session
from labmake.engine.plan import check_option
from labmake.engine.rulebook import nearest
from labmake.engine.settings import SETTABLE, Setting, Settings
from labmake.errors import LabmakeError, Misuse, NoRule, printable
from labmake.layout import experiment_of, short

NUMBERS = ("cpus", "gpus", "retries")


def settings_of(opened: Session, written: Iterable[str], targets: Sequence[str]) -> Settings:
    """The settings that a command line asks for, each a pattern and its values joined by NUL.

    Raises Misuse for what cannot be set so, NoRule for a pattern that no target of the experiments asked for can have.
    """
    settings = Settings(tuple(_setting(*text.split("\0")) for text in written))
    for setting in settings.all:
        _check_fits(opened, setting, targets)
    return settings


def _setting(pattern: str, *words: str) -> Setting:
    shown = printable(" ".join(["--set", pattern, *words]))[:200]
    advice = "write a pattern of targets and then what is set: --set 'models/*' memory=80G"
    if not words:
        what = "names no targets" if re.match(r"[a-z_]+=", pattern) else "sets nothing"
        raise Misuse(f"--set {what}", [("given", shown)], [advice])
    values: dict[str, Any] = {}
    for word in words:
        name, _, text = word.partition("=")
        values[name] = _value(name, text, shown)
    return Setting(pattern, values)


def _value(name: str, text: str, shown: str) -> Any:
    can = ", ".join(sorted(SETTABLE & OPTIONS.keys()))
    facts = [("given", shown), ("can be set", can)]
    if name not in SETTABLE and name in OPTIONS.keys() | LATER:
        raise Misuse(
            f"{name}= cannot be set for one build", facts, ["it says what is made, or whether: write it in the rule"]
        )
    if name not in SETTABLE:
        near = difflib.get_close_matches(name, SETTABLE & OPTIONS.keys(), 1)
        raise Misuse(f"{name}= is nothing that a step has", facts, [f"did you mean {near[0]}=?"] if near else [])
    if name in LATER:
        raise Misuse(f"{name}= is reserved and not offered in this version", facts, ["drop it"])
    value: Any = int(text) if name in NUMBERS and text.isdecimal() and text.isascii() else text
    try:
        check_option(name, value)
    except ValueError:
        raise Misuse(f"{name}= takes {OPTIONS[name]}", [("given", shown)], ["correct the value"]) from None
    return value


def _check_fits(opened: Session, setting: Setting, targets: Sequence[str]) -> None:
    rulebook, current = opened.services.rulebook, opened.experiment
    named = [experiment_of(path) for path in (setting.pattern, *targets)]
    asked = dict.fromkeys([current, *(name for name in named if name in rulebook.experiments)])
    patterns: dict[str, Any] = {}
    for experiment in asked:
        assert experiment is not None
        for rule in rulebook.rules(experiment):
            if setting.may_fit(rule, experiment):
                return
            patterns.update({short(pattern, experiment): rule.where for pattern in rule.outputs.values()})
    raise _fits_nothing(setting, patterns)


def _fits_nothing(setting: Setting, patterns: dict[str, Any]) -> LabmakeError:
    facts: list[tuple[str, object]] = [("pattern", printable(setting.pattern))]
    facts += [("nearest", f"{pattern}   {patterns[pattern]}") for pattern in nearest(setting.pattern, patterns)]
    advice = "a pattern is of short paths or of paths from the root; * is within a name, ** any folders"
    return NoRule("--set names no target", facts, [advice])

"""Inputs: from what a step's author wrote to the keys it depends on and the shape in which its recipe sees them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine.patterns import fill, wildcards
from labmake.engine.plan import Answer, Failed, Result, Unknown
from labmake.errors import LabmakeError, RuleError, StoreError
from labmake.frozen import frozen
from labmake.layout import expand
from labmake.model import Each, Find, Glob, Key, Spec, Step


@frozen
class Item:
    """One file or folder of an input: its labels (wildcard values or a dict's key) and its key.

    `tolerant`: the step goes on without it if it failed.
    """

    labels: tuple[str, ...]
    key: Key
    tolerant: bool = False

    @property
    def question(self) -> Key:
        return f"?try {self.key}" if self.tolerant else self.key


@frozen
class Shape:
    """An input as the recipe sees it. `kind`: one, list, dict (a label is a key), each (one label a wildcard)."""

    kind: str
    items: tuple[Item, ...]
    each: tuple[str, ...] = ()


class NotAnswered(BaseException):
    """An answer that a node needs is Failed or Unknown; it ends the node with the same result."""

    def __init__(self, result: Failed | Unknown) -> None:
        super().__init__()
        self.result = result


Group = tuple[tuple[Key, str], ...]
Asking = Generator[Sequence[Key], Sequence[Result], Any]


def ask(keys: Sequence[Key], groups: list[Group]) -> Generator[Sequence[Key], Sequence[Result], list[Answer]]:
    """The answers of keys, recorded as one group. Raises NotAnswered for the first that is Failed, else Unknown."""
    if not keys:
        return []
    results = yield keys
    answers: list[Answer] = []
    unknown: Unknown | None = None
    for result in results:
        if isinstance(result, Failed):
            raise NotAnswered(result)
        if isinstance(result, Unknown):
            unknown = unknown or result
        else:
            answers.append(result)
    if unknown is not None:
        raise NotAnswered(unknown)
    groups.append(tuple((key, answer.digest) for key, answer in zip(keys, answers, strict=True)))
    return answers


def shapes(step: Step, binding: Mapping[str, str], experiment: str, groups: list[Group]) -> Asking:
    """The Shape of every input of a step, after asking for the values that each, find and glob range over."""
    questions: list[Key] = []
    for spec in step.inputs.values():
        questions.extend(_questions(spec, binding, experiment))
    unique = list(dict.fromkeys(questions))
    answers = yield from ask(unique, groups)
    known = {key: json.loads(answer.data or b"null") for key, answer in zip(unique, answers, strict=True)}
    return {name: _shape(name, spec, binding, experiment, known) for name, spec in step.inputs.items()}


def _questions(spec: Spec, binding: Mapping[str, str], experiment: str) -> Iterable[Key]:
    if isinstance(spec, Each):
        for values in spec.over.values():
            if isinstance(values, str):
                yield f"?keys {_path(values, binding, experiment)}"
            elif isinstance(values, Find):
                yield _find_key(values, binding, experiment)
    elif isinstance(spec, Find):
        yield _find_key(spec, binding, experiment)
    elif isinstance(spec, Glob):
        yield _glob_key(spec, binding, experiment)


def _find_key(spec: Find, binding: Mapping[str, str], experiment: str) -> Key:
    return f"?find {expand(fill(spec.pattern, binding), experiment)}"


def _glob_key(spec: Glob, binding: Mapping[str, str], experiment: str) -> Key:
    return f"?glob {expand(fill(spec.pattern, binding), experiment)}"


def _shape(name: str, spec: Spec, binding: Mapping[str, str], experiment: str, known: Mapping[Key, Any]) -> Shape:
    if isinstance(spec, str):
        return Shape("one", (Item((), _path(spec, binding, experiment)),))
    if isinstance(spec, Each):
        return _each(name, spec, binding, experiment, known)
    if isinstance(spec, Find):
        found = known[_find_key(spec, binding, experiment)]
        names = tuple(wildcards(fill(spec.pattern, binding)))
        return Shape("each", tuple(Item(tuple(values), path) for values, path in found), names)
    if isinstance(spec, Glob):
        return Shape("list", tuple(Item((), path) for path in known[_glob_key(spec, binding, experiment)]))
    if isinstance(spec, dict):
        return Shape("dict", tuple(Item((key,), _path(path, binding, experiment)) for key, path in spec.items()))
    return Shape("list", tuple(Item((), _path(path, binding, experiment)) for path in spec))


def _each(name: str, spec: Each, binding: Mapping[str, str], experiment: str, known: Mapping[Key, Any]) -> Shape:
    unknown = [name for name in wildcards(spec.pattern) if name not in binding and name not in spec.over]
    if unknown:
        raise _no_wildcard(spec.pattern, unknown[0], binding)
    ranges: list[list[str]] = []
    for wildcard, values in spec.over.items():
        if isinstance(values, str):
            found = known[f"?keys {_path(values, binding, experiment)}"]
        elif isinstance(values, Find):
            found = _found_values(wildcard, values, binding, known[_find_key(values, binding, experiment)])
        else:
            found = [str(value) for value in values]
        ranges.append(_checked_values(name, wildcard, found))
    names = tuple(spec.over)
    items = []
    for combination in itertools.product(*ranges):
        values = {**binding, **dict(zip(names, combination, strict=True))}
        items.append(Item(combination, _path(spec.pattern, values, experiment), spec.failed))
    return Shape("each", tuple(items), names)


def _found_values(wildcard: str, spec: Find, binding: Mapping[str, str], found: list[Any]) -> list[str]:
    names = wildcards(fill(spec.pattern, binding))
    if wildcard in names:
        index = names.index(wildcard)
    elif len(names) == 1:
        index = 0
    else:
        raise RuleError(
            f"find() has no wildcard {wildcard}", [("pattern", spec.pattern), ("wildcards", ", ".join(names))]
        )
    return list(dict.fromkeys(values[index] for values, _ in found))


def _checked_values(name: str, wildcard: str, values: Sequence[str]) -> list[str]:
    bad = [value for value in values if not value or "/" in value or value in (".", "..") or split_slice(value)]
    twice = (
        [value for value in dict.fromkeys(values) if list(values).count(value) > 1]
        if len(set(values)) < len(values)
        else []
    )
    if bad or twice:
        raise RuleError(
            f"{wildcard} of the input {name} has a value that cannot be in a path"
            if bad
            else f"{wildcard} of the input {name} has a value twice",
            [("value", repr((bad or twice)[0]))],
            ["values of a wildcard are different, not empty, without / and without .json# and the like"],
        )
    return list(values)


def _path(written: object, binding: Mapping[str, str], experiment: str) -> Key:
    """The key of a path or slice as written, its wildcards filled in."""
    if not isinstance(written, str):
        raise RuleError("an input in a list or dict is no path", [("given", repr(written)[:200])])
    unknown = [name for name in wildcards(written) if name not in binding]
    if unknown:
        raise _no_wildcard(written, unknown[0], binding)
    path = fill(written, binding)
    cut = split_slice(path)
    return expand(path, experiment) if cut is None else f"{expand(cut[0], experiment)}#{cut[1]}"


def _no_wildcard(written: str, name: str, binding: Mapping[str, str]) -> RuleError:
    return RuleError(
        f"the input {written} uses {{{name}}}, which is no wildcard of the output",
        [("wildcards", ", ".join(binding) or "none")],
        [f"use each(…, {name}=…) to take all of them, or add {{{name}}} to the output"],
    )


def needed_by(error: LabmakeError, target: str, where: object) -> LabmakeError:
    """The error, with the first target that needed the missing thing among its facts."""
    if isinstance(error, (RuleError, StoreError)) and not any(label == "needed by" for label, _ in error.facts):
        error.facts.append(("needed by", f"{target}   {where}"))
    return error

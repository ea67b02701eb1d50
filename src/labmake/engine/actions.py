"""Actions: a fully decided step as a canonical text, whose digest is the identity by which its results are cached.

The text names all that may change the result and nothing else, one thing a line, so that two actions differ in lines
a person can read: format version, recipe, parameters, wildcards, code (file by file), environment, inputs with their
digests, outputs. Never in it: the experiment's name, absolute paths, user, host, date, resources, labmake's version.
An input of more than LONG items is one line with the digest of the list, which is kept as a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from labmake.data.slices import slice_place, split_slice
from labmake.engine.inputs import Item, Shape
from labmake.engine.patterns import fill_text
from labmake.engine.plan import Answer
from labmake.layout import Places
from labmake.model import FORMAT, Action, Digest, Input, Json, Key, Recipe, Step, canonical, digest_of

LONG = 64


def bind(step: Step, binding: Mapping[str, str]) -> tuple[Recipe, dict[str, Json]]:
    """The recipe and parameters of a step with its wildcards filled in. A shell command keeps its holes."""
    recipe = step.recipe
    text = recipe.text if recipe.kind == "sh" else fill_text(recipe.text, binding)
    bound = Recipe(recipe.kind, text, fill_text(recipe.function, binding), recipe.interpreter)
    return bound, {name: _bound(value, binding) for name, value in step.params.items()}


def _bound(value: Json, binding: Mapping[str, str]) -> Json:
    if isinstance(value, str):
        return fill_text(value, binding)
    if isinstance(value, list):
        return [_bound(item, binding) for item in value]
    if isinstance(value, dict):
        return {key: _bound(item, binding) for key, item in value.items()}
    return value


def compose(
    *,
    recipe: Recipe,
    params: Mapping[str, Json],
    binding: Mapping[str, str],
    shapes: Mapping[str, Shape],
    answers: Mapping[str, Answer],
    outputs: Mapping[str, str],
    code: tuple[tuple[str, Digest, str], ...],
    environment: str,
    places: Places,
    keep: Callable[[bytes], Digest],
    wrap: str = "",
    asked: Key = "",
) -> Action:
    """The action of a decided step.

    `answers` has the answer to every item's question, `outputs` project paths by name, `code` (project path, digest,
    identity) of the closure's files, of which those without an identity do not count; `keep` stores a blob.
    Raises RuleError if two files would share a place.
    """
    lines = [f"labmake action {FORMAT}", f"recipe {_texts([recipe.kind, recipe.function, recipe.interpreter])}"]
    lines.append(f"text {canonical(recipe.text)}")
    if wrap:
        lines.append(f"wrap {canonical(wrap)}")
    lines += [f"parameter {canonical(name)} {canonical(value)}" for name, value in sorted(params.items())]
    lines += [f"wildcard {canonical(name)} {canonical(value)}" for name, value in sorted(binding.items())]
    placed_code = tuple((places.place(path), digest, identity) for path, digest, identity in code)
    lines += [f"code {canonical(place)} {identity}" for place, _, identity in sorted(placed_code) if identity]
    lines.append(f"environment {environment}")
    inputs: list[Input] = []
    roles: dict[str, Any] = {}
    for name, shape in shapes.items():
        mine = [_input(name, item, answers[item.question], places) for item in shape.items]
        inputs += [one for one in mine if one.digest != "failed"]
        roles[name] = _role(shape, mine)
        described = [_line(item, one) for item, one in zip(shape.items, mine, strict=True)]
        if len(described) > LONG:
            whole = keep(("\n".join(described) + "\n").encode())
            described = [f"{len(mine)} items {whole}"]
        kind = _texts([shape.kind, *shape.each])
        lines += [f"input {canonical(name)} {kind} {line}" for line in described]
    places_out = {name: places.place(path) for name, path in outputs.items()}
    lines += [f"output {canonical(name)} {canonical(place)}" for name, place in places_out.items()]
    text = "\n".join(lines) + "\n"
    return Action(
        digest_of(text.encode()),
        text,
        recipe,
        params,
        tuple(dict.fromkeys(inputs)),
        tuple((place, digest) for place, digest, _ in placed_code),
        places_out,
        roles,
        {name: shape.each for name, shape in shapes.items() if shape.each},
        asked,
    )


def _input(name: str, item: Item, answer: Answer, places: Places) -> Input:
    cut = split_slice(item.key)
    place = places.place(item.key) if cut is None else slice_place(places.place(cut[0]), cut[1])
    return Input(name, place, answer.digest, answer.origin)


def _line(item: Item, one: Input) -> str:
    return f"{_texts(item.labels)} {canonical(one.place)} {one.digest}"


def _texts(texts: Iterable[str]) -> str:
    """canonical() of a list of texts, in a tenth of its time."""
    return f"[{','.join([canonical(text) for text in texts])}]"


def _role(shape: Shape, mine: list[Input]) -> Any:
    """The input as JSON: a place, a list of places, an object of them, or a list of records (several wildcards)."""
    there = [one.place if one.digest != "failed" else None for one in mine]
    if shape.kind == "one":
        return there[0]
    if shape.kind == "list":
        return there
    if shape.kind == "dict" or len(shape.each) == 1:
        return {item.labels[0]: place for item, place in zip(shape.items, there, strict=True)}
    return [
        {**dict(zip(shape.each, item.labels, strict=True)), "path": place}
        for item, place in zip(shape.items, there, strict=True)
    ]

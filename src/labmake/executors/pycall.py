"""What a step's function gets and what becomes of what it returns: names are bound, results written to the outputs."""

from __future__ import annotations

import collections.abc
import inspect
import os
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from labmake.errors import RuleError
from labmake.formats import load, loadable, write

_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_LISTS = (list, tuple, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection)
_LIBRARIES = {"pandas": "pandas", "pd": "pandas", "polars": "polars", "pl": "polars", "numpy": "numpy", "np": "numpy"}

Offer = tuple[str, Any]
"""What a step offers under a name: input, parameter, wildcard, output, out or scratch; and its JSON value."""


def bind(function: Callable[..., Any], step: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The positional and keyword arguments that `function` gets in `step` (the content of the file LABMAKE_STEP).

    By name: inputs, loaded as annotated; parameters; wildcards, as numbers if annotated int or float; outputs, `out`
    and `scratch` as paths. `**rest` gets the inputs and parameters that are left, since wildcards and outputs would be
    in the way of whom it hands them on to.
    Raises RuleError for a parameter that nothing provides, and for an input or parameter that the function ignores.
    """
    offers = _offers(step)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    unused = [*step.get("inputs", {}), *step.get("parameters", {})]
    for name, parameter in _parameters(function, step).items():
        annotation = _resolved(parameter.annotation, _globals(function))
        if parameter.kind is parameter.VAR_KEYWORD:
            named |= {other: _value(other, offers[other], annotation, step) for other in unused}
            unused = []
        elif name in offers and parameter.kind is not parameter.VAR_POSITIONAL:
            value = _value(name, offers[name], annotation, step)
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(value)
            else:
                named[name] = value
            unused = [other for other in unused if other != name]
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL:
            raise _unprovided(name, offers, function, step)
    if unused:
        raise _untaken(unused, offers, function, step)
    return positional, named


def _offers(step: Mapping[str, Any]) -> dict[str, Offer]:
    """Everything a function may name. The words of the rule come last: they win against `out` and `scratch`."""
    outputs = step["outputs"]
    offers: dict[str, Offer] = {"scratch": ("scratch", step.get("scratch", "")), "out": ("out", outputs)}
    for kind, values in (
        ("output", outputs),
        ("wildcard", step.get("wildcards", {})),
        ("parameter", step.get("parameters", {})),
        ("input", step.get("inputs", {})),
    ):
        offers |= {name: (kind, value) for name, value in values.items()}
    return offers


def _parameters(function: Callable[..., Any], step: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise RuleError(
            f"{_title(step)} does not tell its parameters",
            [("error", error)],
            ["wrap it in a function of your own"],
        ) from error


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    names = getattr(inner, "__globals__", None)
    return names if names is not None else vars(sys.modules.get(getattr(inner, "__module__", ""), types))


def _resolved(annotation: Any, names: dict[str, Any]) -> Any:
    """The annotation in the module's names; its text if they do not have it, None if there is none.

    A name such as pandas that is imported for type checkers only is imported here: the input shall be loaded with it.
    """
    imported: dict[str, Any] = {}
    for _ in range(len(_LIBRARIES)):
        if not isinstance(annotation, str):
            break
        try:
            annotation = eval(annotation, names, imported)
        except NameError as error:
            if error.name not in _LIBRARIES or error.name in imported:
                break
            imported[error.name] = __import__(_LIBRARIES[error.name])
        except Exception:
            break
    return None if annotation is inspect.Parameter.empty else annotation


def _value(name: str, offer: Offer, annotation: Any, step: Mapping[str, Any]) -> Any:
    kind, value = offer
    if kind == "input":
        return _input(name, value, annotation, step.get("each", {}).get(name, []))
    if kind == "wildcard" and annotation in (int, float):
        try:
            return annotation(value)
        except ValueError as error:
            raise RuleError(
                f"the wildcard {name} is no {annotation.__name__}",
                [("value", value), ("function", _title(step))],
                [f"bound it in the target: {{{name}:[0-9]+}}, or annotate it as str"],
            ) from error
    if kind == "out":
        return _out({output: Path(place) for output, place in value.items()})
    return Path(value) if kind in ("output", "scratch") else value


def _out(places: dict[str, Path]) -> Any:
    """The path of the one output, a tuple of several without names, a dict of several with names."""
    if len(places) == 1:
        return next(iter(places.values()))
    return tuple(places.values()) if _unnamed(places) else places


def _unnamed(outputs: Mapping[str, object]) -> bool:
    return list(outputs) == [f"out{number}" for number in range(1, len(outputs) + 1)]


def _input(name: str, value: Any, annotation: Any, wildcards: list[str]) -> Any:
    """The files of an input in its shape; None stands for the result of a step that failed."""
    if value is None:
        return None
    if isinstance(value, str):
        return load(Path(value), annotation)
    if isinstance(value, list) and len(wildcards) > 1:
        value = {tuple(record[wildcard] for wildcard in wildcards): record["path"] for record in value}
    element = _element(name, annotation, isinstance(value, dict))
    if isinstance(value, dict):
        return {key: _input(name, path, element, []) for key, path in value.items()}
    return [_input(name, path, element, []) for path in value]


def _element(name: str, annotation: Any, keyed: bool) -> Any:
    """The annotation of one file in that of a dict or list of files."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        left = [option for option in typing.get_args(annotation) if option is not type(None)]
        return _element(name, left[0], keyed) if len(left) == 1 else None
    if (origin or annotation) in (_DICTS if keyed else _LISTS):
        arguments = [argument for argument in typing.get_args(annotation) if argument is not Ellipsis]
        return arguments[-1] if arguments else None
    if not loadable(annotation):
        return None
    shape = "dict" if keyed else "list"
    wanted = "dict[str, pandas.DataFrame]" if keyed else "list[pandas.DataFrame]"
    raise RuleError(
        f"the input {name} is a {shape} of files, and the function takes one {inspect.formatannotation(annotation)}",
        [("input", name), ("annotation", inspect.formatannotation(annotation))],
        [f"annotate it as {shape} for the paths, or as {wanted} and the like to have each file loaded"],
    )


def _title(step: Mapping[str, Any]) -> str:
    recipe = step["recipe"]
    return f"{recipe['file']}:{recipe['function']}"


def _listing(offers: Mapping[str, Offer]) -> list[tuple[str, object]]:
    kinds: dict[str, list[str]] = {}
    for name, (kind, _) in offers.items():
        kinds.setdefault("also" if kind in ("out", "scratch") else f"{kind}s", []).append(name)
    order = ("inputs", "parameters", "wildcards", "outputs", "also")
    return [(kind, ", ".join(sorted(kinds[kind]))) for kind in order if kind in kinds]


def _unprovided(
    name: str, offers: Mapping[str, Offer], function: Callable[..., Any], step: Mapping[str, Any]
) -> RuleError:
    import difflib

    near = difflib.get_close_matches(name, offers, 1)
    return RuleError(
        f"{_title(step)} takes {name}, which its rule does not give",
        [("function", _signature(function, step)), *_listing(offers)],
        [
            *([f"did you mean {near[0]}?"] if near else []),
            f"add {name}=… to the rule (an input) or to py(…) (a parameter), or give {name} a default",
        ],
    )


def _untaken(
    names: list[str], offers: Mapping[str, Offer], function: Callable[..., Any], step: Mapping[str, Any]
) -> RuleError:
    return RuleError(
        f"{_title(step)} does not take {', '.join(names)}, which its rule gives",
        [("function", _signature(function, step)), *[(offers[name][0], name) for name in names]],
        ["take it as a parameter of the function, add **rest, or drop it from the rule"],
    )


def _signature(function: Callable[..., Any], step: Mapping[str, Any]) -> str:
    return f"{step['recipe']['function']}({', '.join(map(str, _parameters(function, step)))})"


def settle(result: object, step: Mapping[str, Any]) -> None:
    """Write what the function returned to the step's outputs, in the working directory.

    One output takes the value itself, several a dict by name or a tuple in order. What is None, or the path of the
    output, must have been written by the function. Raises RuleError if nothing was returned and nothing written, if
    both were, and if the value fits neither the outputs nor the format.
    """
    outputs = step["outputs"]
    values = {name: _own(value, outputs[name]) for name, value in _by_output(result, step).items()}
    missing = [name for name in outputs if values[name] is None and not os.path.lexists(outputs[name].rstrip("/"))]
    if missing:
        what = "returned nothing and wrote nothing" if result is None else "neither returned nor wrote an output"
        raise RuleError(
            f"{_title(step)} {what}",
            [("missing", ", ".join(outputs[name] for name in missing))],
            ["return the table, figure, array, dict or text", "or take `out` and write to this path"],
        )
    for name, value in values.items():
        if value is not None:
            _write_output(value, outputs[name], step)


def _own(value: object, place: str) -> object:
    """None for the path of the output itself, which says no more than that the function wrote it."""
    same = isinstance(value, Path) and os.path.abspath(value) == os.path.abspath(place)
    return None if same else value


def _by_output(result: object, step: Mapping[str, Any]) -> dict[str, object]:
    outputs = step["outputs"]
    if result is None:
        return dict.fromkeys(outputs)
    if len(outputs) == 1:
        return dict.fromkeys(outputs, result)
    if isinstance(result, dict) and set(result) <= set(outputs):
        return {name: result.get(name) for name in outputs}
    if isinstance(result, tuple | list) and len(result) == len(outputs):
        return dict(zip(outputs, result, strict=True))
    found = f"a {type(result).__name__}"
    if isinstance(result, dict):
        found += f" with {', '.join(map(str, result))}"
    elif isinstance(result, tuple | list):
        found += f" of {len(result)}"
    raise RuleError(
        f"what {_title(step)} returned does not fit its outputs",
        [("outputs", ", ".join(outputs)), ("returned", found)],
        ["return a dict with an entry for each output, or a tuple in their order"],
    )


def _write_output(value: object, place: str, step: Mapping[str, Any]) -> None:
    if place.endswith("/"):
        raise RuleError(
            f"{_title(step)} returned a value for a folder",
            [("output", place), ("returned", type(value).__name__)],
            ["take `out` and write the files into this folder"],
        )
    if isinstance(value, Path):
        raise RuleError(
            f"{_title(step)} returned a path that is not its output",
            [("output", place), ("returned", value)],
            ["write to the path `out`, and return nothing"],
        )
    if os.path.lexists(place):
        raise RuleError(
            f"{_title(step)} wrote its output and returned something too",
            [("output", place), ("returned", type(value).__name__)],
            ["do one of the two: return nothing, or do not write"],
        )
    write(value, Path(place))

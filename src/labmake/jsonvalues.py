"""What a Python value is in JSON: numpy's numbers and arrays, dates and paths too; anything else is an error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from labmake.errors import RuleError


def type_name(value: object) -> str:
    """The full name of the type of `value`, as a person writes it."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def plain(value: Any, place: str = "") -> Any:
    """`value` as JSON values; `place` says where in the returned value it lies. Raises RuleError for what has none."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise _not_json("an infinite number", place, "return null (None), a string or a finite number in its place")
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return _plain_dict(value, place)
    if isinstance(value, list | tuple):
        return [plain(element, f"{place}[{n}]") for n, element in enumerate(value)]
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "__fspath__"):
        return value.__fspath__()
    if isinstance(value, int) or _of_numpy(value):
        return plain(_unboxed(value), place)
    if isinstance(value, str):
        return str(value)
    raise _not_json(type_name(value), place, "convert it to dicts, lists, numbers, strings, booleans and None")


def _of_numpy(value: object) -> bool:
    return any(cls.__module__ == "numpy" and cls.__name__ in ("ndarray", "generic") for cls in type(value).__mro__)


def _unboxed(value: Any) -> Any:
    """The Python value of a numpy one or of a subclass of int."""
    if not hasattr(value, "tolist"):
        return value.__index__()
    if value.dtype.kind == "M":
        # Dates in nanoseconds would become bare integers.
        value = value.astype("datetime64[us]")
    simple = value.tolist()
    # A long double gives itself.
    return float(simple) if type(simple) is type(value) else simple


def _plain_dict(value: Mapping[Any, Any], place: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, element in value.items():
        if isinstance(key, tuple):
            raise _not_json(f"the key {key!r}", place, "make the keys strings")
        simple = plain(key, place)
        name = simple if isinstance(simple, str) else json.dumps(simple)
        if name in result:
            raise _not_json(f"two keys that are both written {name!r}", place, "make the keys differ as text")
        result[name] = plain(element, f"{place}.{name}" if place else name)
    return result


def _not_json(what: str, place: str, todo: str) -> RuleError:
    return RuleError(f"{what} cannot be written as JSON", [("in", place or "the returned value")], [todo])

"""`@frozen`: a frozen dataclass with slots whose definition costs a third, since a command defines sixty of them.

A standard one compiles the texts of `__init__`, `__repr__`, `__eq__`, `__hash__`, `__setattr__` and `__delattr__` in
each process anew: together nearly half of all imports of a small build (docs/design/null-build.md). Here only
`__init__` is compiled, the rest are shared functions, and that nothing is assigned to is checked by mypy alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class of annotated fields a dataclass with slots that is compared, hashed and shown by its fields."""
    made: Any = dataclass(slots=True, repr=False, eq=False)(cls)
    names = tuple(made.__dataclass_fields__)
    _compare(made, attrgetter(*names) if names else lambda _: ())
    made.__repr__ = _shown
    return made  # type: ignore[no-any-return]


def _compare(made: Any, values: Callable[[Any], Any]) -> None:
    def equal(self: Any, other: Any) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    made.__eq__ = equal
    made.__hash__ = lambda self: hash(values(self))


def _shown(self: Any) -> str:
    fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__dataclass_fields__)
    return f"{self.__class__.__qualname__}({fields})"

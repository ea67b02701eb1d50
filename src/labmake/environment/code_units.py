"""The units of a Python module: what its top level defines and does, each with its normal form and what it reaches.

A unit is one statement at the top level, one name of an import, or a whole `if`, `for` or `try`. What runs only under
`if __name__ == "__main__":` or `if TYPE_CHECKING:` is none, for a step's module is imported.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from labmake.environment.code_pure import HOOKS, Evaluated, chain, evaluated
from labmake.environment.code_visit import Function, Seen, Visitor

SHOWN = 60
"""Characters of a statement without a name by which it is called."""


class Imported(NamedTuple):
    """See labmake.environment.code_visit.Import."""

    bound: str
    level: int
    module: str
    attr: str
    flags: int
    rests: list[str]


class Unit(NamedTuple):
    """`kind`: function, class, constant, block, import, star, or effect: a statement that always counts.

    `marks`: d for a function made by singledispatch, h for a class with hooks for those who extend it, v for a constant
    whose value its text shows. `calls`, `bases` and `touched` are what has to be known for the statement to be pure.
    """

    label: str
    names: list[str]
    first: int
    last: int
    kind: str
    marks: str
    digest: str
    docs: str
    uses: list[str]
    imports: list[Imported]
    words: list[str]
    calls: list[str]
    bases: list[str]
    touched: list[str]
    now: list[str]


class Table:
    """The units of a module by number, by the names that they bind, and its star imports.

    It is kept as a JSON object in which each unit is a text: of most modules a function needs few units, and reading
    all of 60 000 lines takes 0.1 s.
    """

    __slots__ = ("_texts", "_units", "bound", "stars")

    def __init__(
        self, units: list[Unit | None], texts: list[str], bound: dict[str, list[int]], stars: list[int]
    ) -> None:
        self._units = units
        self._texts = texts
        self.bound = bound
        self.stars = stars

    def __len__(self) -> int:
        return len(self._units)

    def unit(self, number: int) -> Unit:
        found = self._units[number]
        if found is None:
            row = Unit(*json.loads(self._texts[number]))
            found = row._replace(imports=[Imported(*one) for one in row.imports]) if row.imports else row
            self._units[number] = found
        return found

    def __iter__(self) -> Iterator[Unit]:
        return (self.unit(number) for number in range(len(self._units)))

    def kept(self) -> dict[str, Any]:
        """As JSON."""
        return {"bound": self.bound, "stars": self.stars, "rows": [_TEXT(unit) for unit in self._units]}


_TEXT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def table(units: list[Unit]) -> Table:
    """The table of a module's units."""
    bound: dict[str, list[int]] = {}
    for number, unit in enumerate(units):
        for name in unit.names:
            bound.setdefault(name, []).append(number)
    stars = [number for number, unit in enumerate(units) if any(one.attr == "*" for one in unit.imports)]
    return Table(list(units), [], bound, stars)


def table_of(kept: dict[str, Any]) -> Table:
    """The table that was kept as JSON."""
    return Table([None] * len(kept["rows"]), kept["rows"], kept["bound"], kept["stars"])


def pieces(statements: Iterable[ast.stmt], visitor: Visitor, main: bool) -> Iterator[tuple[ast.stmt, Seen, list[Unit]]]:
    """Each statement of a module, what was seen of it (of each name of an import), and the units that are in it.

    `main` if `__name__` may be "__main__" in a step. Raises RecursionError for the rare tree that is too deep.
    """
    body = list(statements)
    postponed = any(_imports_name(node, "__future__", "annotations") for node in body)
    checking = _is_for_checkers(body)
    for node in body:
        yield from _pieces(node, visitor, postponed, main, checking)


def _pieces(
    node: ast.stmt, visitor: Visitor, postponed: bool, main: bool, checking: bool
) -> Iterator[tuple[ast.stmt, Seen, list[Unit]]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            seen = visitor.see_import(node, alias)
            yield node, seen, [_import_unit(node, alias, seen)]
        return
    seen = visitor.see(node)
    if isinstance(node, ast.If) and _never_runs(node.test, main, checking):
        inner = (piece for other in node.orelse for piece in _pieces(other, visitor, postponed, main, checking))
        yield node, seen, [unit for _, _, units in inner for unit in units]
    else:
        yield node, seen, [] if _is_bare(node) else [_unit(node, seen, postponed)]


def _imports_name(node: ast.stmt, module: str, name: str) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == module and any(a.name == name for a in node.names)


def _is_for_checkers(body: Iterable[ast.stmt]) -> bool:
    """Is TYPE_CHECKING false here: imported from typing, or set to False?"""
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id="TYPE_CHECKING")], value=ast.Constant(value=False)):
                continue
            case ast.Assign(targets=targets) if any(chain(target) == "TYPE_CHECKING" for target in targets):
                return False
            case ast.ImportFrom(module=module, names=names) if module not in ("typing", "typing_extensions"):
                if any((alias.asname or alias.name) == "TYPE_CHECKING" for alias in names):
                    return False
    return True


def _is_bare(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))


def _never_runs(test: ast.expr, main: bool, checking: bool) -> bool:
    if chain(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return checking
    match test:
        case ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]):
            return not main
    return False


def _import_unit(node: ast.Import | ast.ImportFrom, alias: ast.alias, seen: Seen) -> Unit:
    words = f"{'.' * getattr(node, 'level', 0)}{getattr(node, 'module', '') or ''}"
    label = f"from {words} import {alias.name}" if isinstance(node, ast.ImportFrom) else f"import {alias.name}"
    return _made(label, node, "star" if alias.name == "*" else "import", "", seen, Evaluated())


def _unit(node: ast.stmt, seen: Seen, postponed: bool) -> Unit:
    asked = evaluated(node, postponed)
    kind, marks, label = "block", "", ", ".join(seen.names)
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            kind = "function"
            decorators = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
            marks = "d" if any(chain(d).rpartition(".")[2] == "singledispatch" for d in decorators) else ""
        case ast.ClassDef():
            kind = "class"
            marks = "h" if any(isinstance(n, Function) and n.name in HOOKS for n in node.body) else ""
        case ast.Assign(value=value) | ast.AnnAssign(value=value):
            kind = "constant"
            marks = "" if isinstance(value, ast.Name | ast.Attribute | ast.Lambda | ast.IfExp | ast.Subscript) else "v"
        case ast.Expr():
            kind = "expression"
    if asked.impure:
        kind = "effect"
    if not 0 < len(seen.names) < 4:
        text = ast.unparse(node).partition("\n")[0]
        label = text[:SHOWN] + "…" * (len(text) > SHOWN)
    return _made(label, node, kind, marks, seen, asked)


def _made(label: str, node: ast.stmt, kind: str, marks: str, seen: Seen, asked: Evaluated) -> Unit:
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    return Unit(
        label,
        seen.names,
        first,
        node.end_lineno or first,
        kind,
        marks,
        seen.digest,
        seen.docs,
        sorted(seen.uses),
        [Imported(*one.row()) for one in seen.imports],
        sorted(seen.words),
        sorted(asked.calls),
        sorted(asked.bases),
        sorted(asked.touched),
        sorted(asked.now),
    )

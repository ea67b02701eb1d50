"""Which packages a Python step imports for certain, and before any code of the project could notice or change how.

A fork server imports them once for many steps. What it may import is what a fresh interpreter would have imported at
the same point: the imports in the order in which they stand, followed through the modules of the project, up to the
first statement that does anything but define. `os.environ["X"] = "1"` above an import, `matplotlib.use(…)`, `try:`, a
call of the project's own: what stands below it is imported by the step itself. So a step in a fork sees the modules,
filters and settings that it would see anyway, and none that only another step asked for.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Import = tuple[str, tuple[str, ...]]
"""A module and the names that are taken from it, as in `from module import names`; none for `import module`."""

LARGEST = 1 << 20
"""Bytes of source that are read for one step at most: a second of parsing is more than a fresh start costs."""

_BUILTINS = frozenset(
    "bool bytes dict float frozenset int len list max min range round set sorted str sum tuple zip".split()
)
_MAKERS = frozenset(
    """Decimal Fraction NewType ParamSpec Path PurePath PurePosixPath TypeVar auto compile date datetime field getLogger
    namedtuple partial timedelta""".split()
)
"""What may be called while a module is defined: it makes a value and nothing else. Makers also as `module.name`."""

_PURE: tuple[type[ast.expr], ...]
_PURE = (ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp)
_PURE = (
    *_PURE,
    ast.BoolOp,
    ast.Compare,
    ast.JoinedStr,
    ast.FormattedValue,
    ast.Subscript,
    ast.Slice,
    ast.IfExp,
    ast.Starred,
)
_PARTS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.keyword)


def certain_imports(root: str, file: str, function: str) -> tuple[Import, ...]:
    """The packages that a step surely imports, in order, by its step folder, the recipe's file, and the function in it
    ("" for a script that is run as it is).

    Of the function itself its first statements count, for all of its module has run before.
    """
    walk = _Walk(
        root, list(dict.fromkeys([os.path.dirname(os.path.join(root, file)), os.path.join(root, "src"), root]))
    )
    tree = walk.read(os.path.join(root, file))
    if tree is not None and walk.module(tree, "" if function else "__main__") and function:
        walk.beginning(tree, function)
    return tuple(walk.found)


@dataclass
class _Walk:
    """The imports found so far below the folders `roots` of Python's path."""

    root: str
    roots: Sequence[str]
    found: list[Import] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    size: int = 0

    def read(self, path: str) -> ast.Module | None:
        """The tree of a file; None if it cannot be read or is no Python, which the step will tell."""
        self.seen.add(path)
        try:
            with open(path, "rb") as file:
                source = file.read(LARGEST - self.size + 1)
            self.size += len(source)
            return ast.parse(source) if self.size <= LARGEST else None
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            return None

    def module(self, tree: ast.Module, name: str = "") -> bool:
        """Follow a module; whether all of it does nothing but import and define."""
        scope = _Scope(name)
        return all(self._statement(statement, scope) for statement in tree.body)

    def beginning(self, tree: ast.Module, function: str) -> None:
        """Add the imports with which a function of the module begins."""
        defined = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == function]
        for statement in defined[-1].body if defined else ():
            docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not docstring and not isinstance(statement, ast.Import | ast.ImportFrom):
                return
            if not self._statement(statement, _Scope("")):
                return

    def _statement(self, statement: ast.stmt, scope: _Scope) -> bool:
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    scope.bind(self._origin(alias.name), [alias.asname or alias.name.partition(".")[0]])
                return all(self._import(alias.name, ()) for alias in names)
            case ast.ImportFrom(module="__future__"):
                return True
            case ast.ImportFrom(module=module, names=names, level=0) if module:
                scope.bind(self._origin(module), [alias.asname or alias.name for alias in names])
                return self._import(module, tuple(alias.name for alias in names))
            case ast.If(test=test, body=body, orelse=others) if scope.decided(test) is not None:
                return all(self._statement(one, scope) for one in (body if scope.decided(test) else others))
            case _:
                return defines(statement, scope)

    def _origin(self, module: str) -> str:
        """Whose a module is: "project", "labmake" or "other"."""
        first = module.partition(".")[0]
        if any(os.path.isdir(os.path.join(r, first)) or self._file(r, first) for r in self.roots):
            return "project"
        return "labmake" if first == "labmake" else "other"

    def _import(self, module: str, names: tuple[str, ...]) -> bool:
        if self._origin(module) != "project":
            if (module, names) not in self.found:
                self.found.append((module, names))
            return True
        files = self._files(module, names)
        for path in files or ():
            if path not in self.seen:
                tree = self.read(path)
                if tree is None or not self.module(tree):
                    return False
        return files is not None

    def _files(self, module: str, names: Iterable[str]) -> list[str] | None:
        """The files of a project module, in the order in which they run; None where the text alone does not tell."""
        parts = module.split(".")
        files: list[str] = []
        folder = next((r for r in self.roots if self._file(r, parts[0])), None)
        if folder is None:
            return None  # a folder without __init__.py: whether a package of that name is installed matters
        for part in parts:
            path = self._file(folder, part)
            if path is None:
                return None
            files.append(path)
            folder = os.path.join(folder, part)
        if files[-1].endswith("__init__.py") and any(name == "*" or self._file(folder, name) for name in names):
            return None  # whether the package binds that name, or its module is imported
        return files

    def _file(self, folder: str, name: str) -> str | None:
        """The file of a module in a folder."""
        for place in (os.path.join(folder, name, "__init__.py"), os.path.join(folder, f"{name}.py")):
            if os.path.isfile(place):
                return place
        return None


@dataclass
class _Scope:
    """Whose the names of a module are: the project's, labmake's, or another package's if it is not noted."""

    name: str
    owners: dict[str, str] = field(default_factory=dict)

    def bind(self, owner: str, names: Iterable[str]) -> None:
        """Take note of names that come from the project, labmake or another package."""
        self.owners.update(dict.fromkeys(names, owner))

    def decided(self, test: ast.expr) -> bool | None:
        """What a test gives when the module is run, None if its text does not tell."""
        match test:
            case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
                return False
            case ast.Compare(
                left=ast.Name(id="__name__"), ops=[ast.Eq()], comparators=[ast.Constant(value="__main__")]
            ):
                return self.name == "__main__"
        return None

    def owner(self, called: ast.expr) -> str:
        """Whose function is called: labmake's own does nothing in a step, the project's may do anything."""
        while isinstance(called, ast.Attribute):
            called = called.value
        return self.owners.get(called.id, "other") if isinstance(called, ast.Name) else "project"


def defines(statement: ast.stmt, scope: _Scope) -> bool:
    """Whether a statement does nothing but define: nobody else sees that it ran."""
    match statement:
        case ast.FunctionDef(name=name, args=args) | ast.AsyncFunctionDef(name=name, args=args):
            scope.bind("project", [name])
            values = [*args.defaults, *(value for value in args.kw_defaults if value is not None)]
            return all(_is_pure(one, scope) for one in values) and _decorated(statement.decorator_list, scope)
        case ast.ClassDef(name=name, bases=bases, keywords=keywords, body=body):
            scope.bind("project", [name])
            values = [*bases, *(keyword.value for keyword in keywords)]
            inner = all(defines(one, scope) for one in body)
            return inner and all(_is_pure(one, scope) for one in values) and _decorated(statement.decorator_list, scope)
        case ast.Assign(targets=targets, value=value):
            return all(_is_name(target) for target in targets) and _is_pure(value, scope)
        case ast.AnnAssign(target=target, value=value):
            return _is_name(target) and (value is None or _is_pure(value, scope))
        case ast.For(target=target, iter=values, body=body, orelse=[]):
            return _is_name(target) and _is_pure(values, scope) and all(defines(one, scope) for one in body)
        case ast.If(test=test, body=body, orelse=others):
            return _is_pure(test, scope) and all(defines(one, scope) for one in [*body, *others])
        case ast.Expr(value=value):
            return _is_pure(value, scope)
    return isinstance(statement, ast.Pass)


def _decorated(decorators: Iterable[ast.expr], scope: _Scope) -> bool:
    """Decorators that define: labmake's, and those of the standard library that everybody knows."""
    known = ("cache", "cached_property", "classmethod", "contextmanager", "dataclass", "lru_cache", "property", "wraps")
    for decorator in decorators:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        arguments = [*decorator.args, *(k.value for k in decorator.keywords)] if isinstance(decorator, ast.Call) else []
        common = name in (*known, "staticmethod", "total_ordering") and scope.owner(called) == "other"
        if not (common or scope.owner(called) == "labmake") or not all(_is_pure(one, scope) for one in arguments):
            return False
    return True


def _is_name(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(_is_name(one) for one in target.elts)
    return isinstance(target, ast.Name)


def _is_pure(value: ast.expr, scope: _Scope) -> bool:
    """Whether a value is made without anybody noticing."""
    match value:
        case ast.Call(func=called, args=args, keywords=keywords):
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            makes = name in _MAKERS or (isinstance(called, ast.Name) and name in _BUILTINS)
            known = scope.owner(called) == "labmake" or (makes and scope.owner(called) == "other")
            return known and all(_is_pure(one, scope) for one in [*args, *(keyword.value for keyword in keywords)])
        case ast.Lambda():
            return True
        case ast.ListComp(elt=element, generators=generators) | ast.SetComp(elt=element, generators=generators):
            parts = [element, *(one.iter for one in generators), *(test for one in generators for test in one.ifs)]
            return all(_is_pure(one, scope) for one in parts)
    if not isinstance(value, _PURE):
        return False
    return all(isinstance(one, _PARTS) or _is_pure(one, scope) for one in ast.iter_child_nodes(value))  # type: ignore[arg-type]

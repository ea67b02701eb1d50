"""labmake's own statements in a module: found, and taken out where they only tell the coordinator something."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from labmake.environment.code_visit import Function, Scope
from labmake.environment.code_vocabulary import word_set

DECLARATIONS = frozenset({"rule", "source", "group"})
"""Calls that only tell the coordinator something; in a step they do nothing."""

PURE = word_set(
    "bool dict enumerate float frozenset int len list max min range reversed round set sorted str sum tuple zip"
)
"""Builtins that may compute an argument of a declaration without leaving anything behind."""


@dataclass(slots=True)
class Labmake:
    """What a module calls labmake's functions, as long as it binds each of these names once and no name of PURE.

    That is known only when all of the module was seen: `once` and `never` are the names that were relied on.
    """

    names: dict[str, str]
    """local name → labmake's name."""
    modules: frozenset[str]
    shadowed: frozenset[str]
    """Names that are known to be bound otherwise too."""
    once: set[str] = field(default_factory=set)
    never: set[str] = field(default_factory=set)

    def call(self, node: ast.AST, among: frozenset[str] | None = None) -> bool:
        """Is `node` a call of a labmake function (one of `among`)?"""
        if not isinstance(node, ast.Call):
            return False
        name, local = None, ""
        if isinstance(node.func, ast.Name):
            local = node.func.id
            name = self.names.get(local)
        elif (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in self.modules
        ):
            local, name = node.func.value.id, node.func.attr
        if name is None or (among is not None and name not in among) or local in self.shadowed:
            return False
        self.once.add(local)
        return True

    def inert(self, nodes: Iterable[ast.AST | None]) -> bool:
        """Can evaluating these expressions change nothing but their own value?"""
        for root in nodes:
            for node in ast.walk(root) if root is not None else ():
                if isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom | ast.Lambda):
                    return False
                if isinstance(node, ast.Call) and not self.call(node) and not self._pure(node.func):
                    return False
        return True

    def _pure(self, function: ast.expr) -> bool:
        if isinstance(function, ast.Name):
            if function.id in PURE and function.id not in self.shadowed:
                self.never.add(function.id)
                return True
            return False
        return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Constant | ast.JoinedStr)

    def is_plan(self, node: ast.stmt) -> bool:
        """Is this a function that only the coordinator calls, if nothing in the module does?"""
        if not isinstance(node, Function) or len(node.decorator_list) != 1 or node.name in self.shadowed:
            return False
        arguments = node.args
        evaluated = [*node.decorator_list, *arguments.defaults, *arguments.kw_defaults]
        if not (self.call(node.decorator_list[0], frozenset({"plan"})) and self.inert(evaluated)):
            return False
        self.once.add(node.name)
        return True

    def misjudged(self, binds: Mapping[str, int]) -> frozenset[str]:
        """The names relied on that are bound otherwise too, by how often each name is bound anywhere in the module."""
        wrong = {name for name in self.once if binds.get(name, 0) != 1}
        return frozenset(wrong | {name for name in self.never if binds.get(name, 0)})


def labmake_names(tree: ast.Module, shadowed: frozenset[str]) -> Labmake:
    """What a module calls labmake's functions."""
    names: dict[str, str] = {}
    modules: set[str] = set()
    for node in filter(imports_labmake, _statements(tree.body)):
        if isinstance(node, ast.ImportFrom):
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.Import):
            modules.update(alias.asname or alias.name for alias in node.names)
    return Labmake(names, frozenset(modules), shadowed)


def imports_labmake(node: ast.AST) -> bool:
    """Does this statement import labmake's names and nothing else?"""
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and node.module == "labmake" and node.names[0].name != "*"
    return isinstance(node, ast.Import) and all(alias.name == "labmake" for alias in node.names)


def drop_declarations(tree: ast.Module, labmake: Labmake) -> None:
    """Take rules, sources and groups out of a module, and the decorators of functions that are steps."""
    if not labmake.names and not labmake.modules:
        return
    for statement in list(_statements(tree.body)):
        if isinstance(statement, Function):
            statement.decorator_list = [
                decorator
                for decorator in statement.decorator_list
                if not (labmake.call(decorator, frozenset({"rule"})) and labmake.inert([decorator]))
            ]
    _filter(tree.body, lambda node: not _is_declaration(node, labmake))


def _is_declaration(node: ast.stmt, labmake: Labmake) -> bool:
    return isinstance(node, ast.Expr) and labmake.call(node.value, DECLARATIONS) and labmake.inert([node.value])


def _blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The statement lists of a compound statement that run in the scope it stands in."""
    if isinstance(node, Scope):
        return
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list):
            yield block
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        for block in _blocks(statement):
            yield from _statements(block)


def _filter(body: list[ast.stmt], keep: Callable[[ast.stmt], bool]) -> None:
    for statement in body:
        for block in _blocks(statement):
            if block:
                _filter(block, keep)
                if not block:
                    block.append(ast.Pass())
    body[:] = [statement for statement in body if keep(statement)]

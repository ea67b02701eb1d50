"""Whether a statement of a module does nothing when it runs but bind names, as far as its own text tells.

What it asks of names (that what it calls is known, that what it takes apart was not made by unknown code) is kept as
chains of names (`functools.partial`), since only all modules together tell what a name means; see code_silent, which
says which functions, decorators and base classes are known.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field

from labmake.environment.code_silent import METHODS

HOOKS = frozenset(
    "__init_subclass__ __pydantic_init_subclass__ __class_getitem__ __set_name__ __prepare__ __mro_entries__".split()
)
"""Methods that Python calls when others use or extend a class that is defined already."""

AT_CREATION = frozenset({"__init__", "__new__", "_generate_next_value_", "_missing_", "__set_name__", "__hash__"})
"""Methods that an Enum calls when it is defined."""

ACCESSORS = frozenset({"setter", "getter", "deleter"})


@dataclass(slots=True)
class Evaluated:
    """What running a statement asks: `impure` if it does more than bind names whatever the names mean; chains that are
    called; base classes; chains that are taken apart, added, iterated; chains that are read."""

    impure: bool = False
    calls: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)
    touched: set[str] = field(default_factory=set)
    now: set[str] = field(default_factory=set)


def evaluated(node: ast.stmt, postponed: bool) -> Evaluated:
    """What running a statement at the top level asks; `postponed` if annotations are not evaluated."""
    walk = _Walk(postponed)
    walk.statement(node)
    return walk.found


def chain(node: ast.expr) -> str:
    """`a.b.c` of names and attributes alone; "" for anything else."""
    attributes = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(attributes)]) if isinstance(node, ast.Name) else ""


class _Walk:
    def __init__(self, postponed: bool) -> None:
        self.found = Evaluated()
        self.postponed = postponed
        self.local: set[str] = set()
        """Names that comprehensions bind."""
        self.own: set[str] = set()
        """Names that the body of a class binds; where they are read they may still be the module's."""

    # --- statements -------------------------------------------------------------------------------------------------

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
            case ast.ClassDef():
                self._class(node)
            case ast.Assign():
                unpacked = any(not isinstance(target, ast.Name) for target in node.targets)
                shown = isinstance(node.value, ast.Tuple | ast.List)
                self.expression(node.value, unpacked and not shown)
                self._targets(node.targets)
            case ast.AnnAssign():
                self._annotations([node.annotation])
                self.expression(node.value)
                self._targets([node.target])
            case ast.Expr():
                self.expression(node.value)
            case ast.If():
                self.expression(node.test, True)
                self._statements([*node.body, *node.orelse])
            case ast.For():
                self.expression(node.iter, True)
                self._targets([node.target])
                self._statements([*node.body, *node.orelse])
            case ast.Try():
                for handler in node.handlers:
                    self.expression(handler.type, True)
                    self._statements(handler.body)
                self._statements([*node.body, *node.orelse, *node.finalbody])
            case ast.ImportFrom():
                self.found.impure |= node.names[0].name == "*"
            case ast.Import() | ast.Pass() | ast.Global():
                pass
            case _:
                self.found.impure |= node.__class__.__name__ != "TypeAlias"

    def _statements(self, nodes: Iterable[ast.stmt]) -> None:
        for node in nodes:
            self.statement(node)

    def _targets(self, targets: Iterable[ast.expr]) -> None:
        for target in targets:
            if isinstance(target, ast.Tuple | ast.List):
                self._targets(target.elts)
            elif isinstance(target, ast.Starred):
                self._targets([target.value])
            elif not isinstance(target, ast.Name):
                self.found.impure = True

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        for decorator in node.decorator_list:
            self._decorator(decorator)
        for default in (*arguments.defaults, *arguments.kw_defaults):
            self.expression(default)
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        self._annotations([node.returns, *(argument.annotation for argument in every if argument is not None)])

    def _annotations(self, nodes: Iterable[ast.expr | None]) -> None:
        if not self.postponed:
            for node in nodes:
                self.expression(node)

    def _decorator(self, node: ast.expr) -> None:
        called = node.func if isinstance(node, ast.Call) else node
        name = chain(called)
        first, _, last = name.rpartition(".")
        if not (first in self.own and last in ACCESSORS):
            self._called(name)
        if isinstance(node, ast.Call):
            self._arguments(node)

    def _class(self, node: ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self._decorator(decorator)
        for base in node.bases:
            if isinstance(base, ast.Subscript):
                self.expression(base.slice, True)
                base = base.value
            if isinstance(base, ast.Call):
                self.expression(base)
            elif chain(base):
                self.found.bases.add(chain(base))
                self._read(chain(base))
            else:
                self.found.impure = True
        for keyword in node.keywords:
            if keyword.arg == "metaclass" and chain(keyword.value):
                self._called(chain(keyword.value))
            elif not isinstance(keyword.value, ast.Constant) or keyword.arg not in ("total", "closed"):
                self.found.impure = True
        own = {name for statement in node.body for name in _bound(statement)}
        if own & AT_CREATION and any(base.rpartition(".")[2].endswith(("Enum", "Flag")) for base in self.found.bases):
            self.found.impure = True
        outer, self.own = self.own, own
        for statement in node.body:
            if isinstance(statement, ast.For | ast.Try | ast.Import | ast.ImportFrom):
                self.found.impure = True
            self.statement(statement)
        self.own = outer

    # --- expressions ------------------------------------------------------------------------------------------------

    def expression(self, node: ast.expr | None, touch: bool = False) -> None:
        """`touch` if the value is used otherwise than by binding or handing it on."""
        match node:
            case None | ast.Constant():
                pass
            case ast.Name():
                self._read(node.id)
                if touch and node.id not in self.local:
                    self.found.touched.add(node.id)
            case ast.Attribute():
                name = chain(node)
                if name:
                    self._read(name)
                    if name.partition(".")[0] not in self.local:
                        self.found.touched.add(name)
                else:
                    self.expression(node.value, True)
            case ast.Call():
                self._call(node)
            case ast.Lambda():
                for default in (*node.args.defaults, *node.args.kw_defaults):
                    self.expression(default)
            case ast.List() | ast.Tuple():
                for element in node.elts:
                    self.expression(element, touch)
            case ast.Dict():
                for key, value in zip(node.keys, node.values, strict=True):
                    self.expression(key, True)
                    self.expression(value, touch or key is None)
            case ast.IfExp():
                self.expression(node.test, True)
                self.expression(node.body, touch)
                self.expression(node.orelse, touch)
            case ast.NamedExpr():
                self.expression(node.value, touch)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node)
            case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.Compare() | ast.Subscript() | ast.Slice():
                self._children(node)
            case ast.JoinedStr() | ast.FormattedValue() | ast.Set() | ast.Starred():
                self._children(node)
            case _:
                self.found.impure = True

    def _children(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.expression(child, True)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        outer = self.local
        for generator in node.generators:
            self.expression(generator.iter, True)
            self.found.impure |= bool(generator.is_async)
            names = {n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name)}
            self.local = self.local | names
            for condition in generator.ifs:
                self.expression(condition, True)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.expression(part, True)
        self.local = outer

    def _call(self, node: ast.Call) -> None:
        function = node.func
        name = chain(function)
        if name:
            self._called(name)
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Constant | ast.JoinedStr):
            self.expression(function.value, True)  # "a b".split()
        elif isinstance(function, ast.Attribute) and function.attr in METHODS:
            self.expression(function.value, True)  # Path("a").resolve()
        else:
            self.found.impure = True
        if name.rpartition(".")[2] == "defaultdict" and node.args:
            # A key that is asked for and is not there calls it.
            self._called(chain(node.args[0]))
        self._arguments(node)

    def _arguments(self, node: ast.Call) -> None:
        for argument in node.args:
            self.expression(argument, True)
        for keyword in node.keywords:
            self.found.impure |= keyword.arg == "key"  # sorted(names, key=…) calls it at once
            self.expression(keyword.value, True)

    def _called(self, name: str) -> None:
        if not name or name.partition(".")[0] in self.local | self.own:
            self.found.impure = True
        else:
            self.found.calls.add(name)
            self._read(name)

    def _read(self, name: str) -> None:
        if name.partition(".")[0] not in self.local:
            self.found.now.add(name)


def _bound(node: ast.stmt) -> Iterable[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return [node.name]
        case ast.Assign():
            return [n.id for target in node.targets for n in ast.walk(target) if isinstance(n, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [name]
    return []

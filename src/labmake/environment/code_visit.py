"""One pass over a statement of a module: its normal form, the module's names it uses, what it imports, telling words.

Everything is collected in one walk, since walking is the cost: a module of 1 000 lines is some 9 000 nodes, and each
walk of the standard library's takes as long as parsing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from labmake.environment.code_vocabulary import LITERAL_IMPORTS, VOCABULARY, docstring_may_be_read
from labmake.model import digest_of

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef

DEFERRED, GUARDED, VALUE = 1, 2, 4
"""Flags of an import: it runs when a function does; its failure may be caught; its module is passed on as a value."""

TYPES = frozenset("TypeVar ForwardRef NamedTuple TypedDict NewType Annotated make_dataclass create_model cast".split())
"""Calls whose strings may be names of types."""

_SKIPPED = frozenset({"ctx", "kind", "type_comment", "type_ignores", "lineno"})
_IDENTIFIER = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


@dataclass(slots=True)
class Import:
    """`bound` is the local name ("" for none), `attr` what is taken from the module, `rests` the attributes used of it
    where the name is local to a function."""

    bound: str
    level: int
    module: str
    attr: str
    flags: int
    rests: set[str] = field(default_factory=set)

    def row(self) -> list[Any]:
        return [self.bound, self.level, self.module, self.attr, self.flags, sorted(self.rests)]


@dataclass(slots=True)
class Seen:
    """What one statement is: `names` it binds at the module's top level; `uses`, the module's names that it may read,
    each with the attributes taken of it (`numpy.random.normal`); what it imports; the words of the vocabulary that it
    has, plain names with a `=` before them; and the names that functions declare global."""

    digest: str
    docs: str
    names: list[str]
    uses: set[str]
    imports: list[Import]
    words: set[str]
    globals: set[str]


class _Names:
    """The names of one scope."""

    __slots__ = ("bound", "elsewhere", "imports", "kind", "loads", "nested")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.bound: set[str] = set()
        self.elsewhere: dict[str, str] = {}
        """Names that it declares global or nonlocal."""
        self.loads: set[str] = set()
        self.nested: set[str] = set()
        """What scopes in it use and do not bind."""
        self.imports: dict[str, list[Import]] = {}


class Visitor:
    """Sees the statements of one module. `binds` counts how often each name is bound anywhere in it."""

    def __init__(self) -> None:
        self.binds: dict[str, int] = {}
        self._reset()

    def _reset(self) -> None:
        self._out: list[str] = []
        self._docs: list[str] = []
        self._scope = _Names("module")
        self._stack = [self._scope]
        self._free: set[str] = set()
        self._imports: list[Import] = []
        self._words: set[str] = set()
        self._globals: set[str] = set()
        self._guards = self._functions = 0
        self._types = self._literal = False
        self._order: dict[str, None] = {}
        self._path: list[str] = []

    def see(self, statement: ast.stmt) -> Seen:
        """One statement at the top level. Raises RecursionError for the rare tree that is too deep."""
        self._reset()
        self._visit(statement)
        return self._seen()

    def see_import(self, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Seen:
        """One name that an import statement at the top level binds, as if it were imported alone."""
        self._reset()
        self._imported(node, [alias])
        return self._seen()

    def _seen(self) -> Seen:
        digest = digest_of("\n".join(self._out).encode("utf-8", "surrogatepass"))
        docs = digest_of("\n".join(self._docs).encode("utf-8", "surrogatepass"))[:32] if self._docs else ""
        uses = self._free | self._scope.loads | self._scope.nested
        return Seen(digest[:32], docs, list(self._order), uses, self._imports, self._words, self._globals)

    # --- the walk ---------------------------------------------------------------------------------------------------

    def _visit(self, node: ast.AST) -> None:
        kind = node.__class__
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, node)
            return
        self._out.append(kind.__name__)
        self._fields(node, _fields_of(kind))

    def _fields(self, node: ast.AST, names: Iterable[str]) -> None:
        out = self._out
        for name in names:
            value = getattr(node, name, None)
            if value is None:
                out.append("-")
            elif value.__class__ is list:
                self._many(value)
            elif isinstance(value, ast.AST):
                self._visit(value)
            else:
                out.append(repr(value))

    def _many(self, nodes: list[Any]) -> None:
        out = self._out
        out.append("[")
        for node in nodes:
            if isinstance(node, ast.AST):
                self._visit(node)
            else:  # None for `**rest` in a dict and for a default that is not there; identifiers
                out.append(f"~{node!r}")
        out.append("]")

    def _word(self, word: str) -> None:
        if word in VOCABULARY and not self._literal:
            self._words.add(word)

    # --- names ------------------------------------------------------------------------------------------------------

    def _bind(self, name: str) -> None:
        self.binds[name] = self.binds.get(name, 0) + 1
        scope = self._scope
        scope.bound.add(name)
        if scope.kind == "module":
            self._order[name] = None

    def _load(self, chain: str) -> None:
        self._scope.loads.add(chain)

    def _name(self, node: ast.Name) -> None:
        name = node.id
        self._out.append("Name")
        self._out.append(name)
        if name in VOCABULARY:
            self._words.add("=" + name)
            if self._functions == 0:
                self._words.add("=" + name + "@")
        if node.ctx.__class__ is ast.Load:
            self._scope.loads.add(name)
        else:
            self._bind(name)

    def _attribute(self, node: ast.Attribute) -> None:
        out, attributes = self._out, [node.attr]
        base = node.value
        while isinstance(base, ast.Attribute):
            attributes.append(base.attr)
            base = base.value
        attributes.reverse()
        for attribute in attributes:
            self._word(attribute)
        out.append("." + ".".join(attributes))
        if isinstance(base, ast.Name):
            name = base.id
            out.append("Name")
            out.append(name)
            if name in VOCABULARY:
                self._words.add("=" + name)
            self._scope.loads.add(".".join([name, *attributes]))
        else:
            self._visit(base)

    def _augmented(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._load(node.target.id)
        self._out.append("AugAssign")
        self._fields(node, _fields_of(ast.AugAssign))

    def _declares(self, node: ast.Global | ast.Nonlocal) -> None:
        kind = node.__class__.__name__
        self._out.append(kind)
        self._out.append(repr(node.names))
        for name in node.names:
            self._scope.elsewhere[name] = kind
            if kind == "Global":
                self._globals.add(name)
                self.binds[name] = self.binds.get(name, 0) + 1

    def _named(self, node: ast.NamedExpr) -> None:
        self._out.append("NamedExpr")
        self._visit(node.value)
        scope, stack = self._scope, self._stack
        self._scope = next(names for names in reversed(stack) if names.kind != "comprehension")
        self._visit(node.target)
        self._scope = scope

    def _captures(self, node: ast.AST) -> None:
        """except … as name, and the patterns of match that bind a name."""
        name = getattr(node, "rest" if isinstance(node, ast.MatchMapping) else "name", None)
        if name:
            self._bind(name)
        self._out.append(node.__class__.__name__)
        self._fields(node, _fields_of(node.__class__))

    # --- texts ------------------------------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant) -> None:
        value = node.value
        # repr() refuses integers of more than 4 300 digits.
        self._out.append(hex(value) if value.__class__ is int else repr(value))
        if value.__class__ is str:
            if self._types:
                self._type_text(value)
            if value in VOCABULARY:
                self._words.add(value)
            elif value.endswith(".py"):
                self._words.add(".py")
            elif "lineno" in value:  # the format of a log's lines
                self._words.add("lineno")

    def _type_text(self, text: str) -> None:
        """The names in a string that is resolved as a type: in the module's names, wherever it stands."""
        self._free.update(_IDENTIFIER.findall(text))

    def _type(self, node: ast.AST | None) -> None:
        before, self._types = self._types, True
        self._visit(node) if node is not None else self._out.append("-")
        self._types = before

    def _annotated(self, node: ast.AnnAssign) -> None:
        self._out.append("AnnAssign")
        self._visit(node.target)
        self._type(node.annotation)
        self._fields(node, ("value", "simple"))

    def _argument(self, node: ast.arg) -> None:
        self._out.append("arg")
        self._out.append(node.arg)
        self._type(node.annotation)

    def _subscript(self, node: ast.Subscript) -> None:
        before = self._types
        self._out.append("Subscript")
        self._visit(node.value)
        if _last_name(node.value) == "Literal":
            self._types = False
        elif self._functions == 0:  # an alias of a type may be resolved later
            self._types = True
        self._visit(node.slice)
        self._types = before

    def _keyword(self, node: ast.keyword) -> None:
        self._out.append("keyword")
        self._out.append(repr(node.arg))
        if node.arg:
            self._word(node.arg)
        self._visit(node.value)

    def _call(self, node: ast.Call) -> None:
        before = self._types, self._literal
        last = _last_name(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""
        first = node.args[0] if node.args else None
        if last in LITERAL_IMPORTS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            level = len(first.value) - len(first.value.lstrip("."))
            self._add_import(Import("", level, first.value.lstrip("."), "", VALUE))
            self._literal = last != "run_module"
        self._out.append("Call")
        if self._literal and isinstance(node.func, ast.Name):
            self._out.append(node.func.id)
            self._load(node.func.id)
        else:
            self._visit(node.func)
        self._literal = before[1]
        self._types = before[0] or last in TYPES
        self._many(node.args)
        self._many(node.keywords)
        self._types = before[0]

    # --- scopes -----------------------------------------------------------------------------------------------------

    def _open(self, kind: str) -> None:
        self._scope = _Names(kind)
        self._stack.append(self._scope)
        self._functions += kind == "function"

    def _close(self) -> None:
        scope = self._stack.pop()
        outer = self._scope = self._stack[-1]
        self._functions -= scope.kind == "function"
        elsewhere = scope.elsewhere
        for name in elsewhere:
            for imported in scope.imports.get(name, ()):
                imported.flags |= VALUE
        if scope.kind == "class":
            outer.nested |= scope.nested
            # A name that the class binds may still be the module's where it is read.
            outer.nested |= scope.loads
            for many in scope.imports.values():
                for imported in many:
                    imported.flags |= VALUE
            return
        for chain in scope.loads | scope.nested:
            name, _, rest = chain.partition(".")
            if name in elsewhere:
                (self._free if elsewhere[name] == "Global" else outer.nested).add(chain)
            elif name not in scope.bound:
                outer.nested.add(chain)
            for imported in scope.imports.get(name, ()):
                imported.rests.add(rest)

    def _lambda(self, node: ast.Lambda) -> None:
        self._out.append("Lambda")
        self._defaults(node.args)
        self._open("function")
        self._arguments(node.args)
        self._visit(node.body)
        self._close()

    def _function(self, node: Function) -> None:
        self._bind(node.name)
        self._word(node.name)
        self._out += (node.__class__.__name__, node.name)
        self._many(node.decorator_list)
        self._defaults(node.args)
        self._open("function")
        for parameter in getattr(node, "type_params", ()):
            self._parameter(parameter)
        self._type(node.returns)
        self._arguments(node.args)
        # What annotations use is evaluated in the names outside, even if an argument has the same name.
        scope = self._scope
        outside = {chain for chain in scope.loads if chain.partition(".")[0] in scope.bound}
        self._stack[-2].nested |= outside
        scope.loads -= outside
        self._block(node, node.name)
        self._close()

    def _defaults(self, arguments: ast.arguments) -> None:
        self._many(arguments.defaults)
        self._many(arguments.kw_defaults)

    def _arguments(self, arguments: ast.arguments) -> None:
        for group in (arguments.posonlyargs, arguments.args, arguments.kwonlyargs):
            self._many(group)
        for single in (arguments.vararg, arguments.kwarg):
            self._visit(single) if single is not None else self._out.append("-")
        # Annotations are evaluated before the arguments' names are bound.
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            self._bind(argument.arg)
        for single in (arguments.vararg, arguments.kwarg):
            if single is not None:
                self._bind(single.arg)

    def _class(self, node: ast.ClassDef) -> None:
        self._bind(node.name)
        self._word(node.name)
        self._out.append("ClassDef")
        self._out.append(node.name)
        self._many(node.decorator_list)
        generic = getattr(node, "type_params", ())
        if generic:
            self._open("function")
            for parameter in generic:
                self._parameter(parameter)
        self._many(node.bases)
        self._many(node.keywords)
        self._open("class")
        self._block(node, node.name)
        self._close()
        if generic:
            self._close()

    def _parameter(self, node: ast.AST) -> None:
        self._bind(node.name)  # type: ignore[attr-defined]
        self._out.append(node.__class__.__name__)
        self._fields(node, _fields_of(node.__class__))

    def _block(self, node: Scope, name: str) -> None:
        """The body of a function or class; its docstring apart, if nothing is known to read it."""
        body = node.body
        first = body[0]
        self._path.append(name)
        if _is_text(first) and not docstring_may_be_read(node):
            self._docs.append(repr((self._path, first.value.value)))  # type: ignore[attr-defined]
            body = body[1:] or [ast.Pass()]
        self._many(body)
        self._path.pop()

    def _comprehension(self, node: ast.AST) -> None:
        generators = node.generators  # type: ignore[attr-defined]
        self._out.append(node.__class__.__name__)
        self._visit(generators[0].iter)
        self._open("comprehension")
        for number, generator in enumerate(generators):
            self._visit(generator.target)
            self._visit(generator.iter) if number else None
            self._many(generator.ifs)
            self._out.append(repr(generator.is_async))
        self._fields(node, [name for name in node._fields if name != "generators"])
        self._close()

    # --- imports ----------------------------------------------------------------------------------------------------

    def _guarded(self, node: ast.AST) -> None:
        """try and with: what fails to import in their bodies may be caught."""
        self._out.append(node.__class__.__name__)
        for name in _fields_of(node.__class__):
            caught = name == "body" and bool(getattr(node, "handlers", True))
            self._guards += caught
            self._fields(node, (name,))
            self._guards -= caught

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        self._imported(node, node.names)

    def _imported(self, node: ast.Import | ast.ImportFrom, names: list[ast.alias]) -> None:
        level = node.level if isinstance(node, ast.ImportFrom) else 0
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for alias in names:
            self._out.append(f"import {level} {module} {alias.name} {alias.asname}")
            for part in (*module.split("."), *alias.name.split(".")):
                # Where import_module is called its argument tells more.
                if alias.asname is not None or part not in LITERAL_IMPORTS:
                    self._word(part)
            if isinstance(node, ast.Import):
                bound = alias.asname or alias.name.partition(".")[0]
                # `import a.b` binds a, `import a.b as c` binds a.b.
                entry = Import(bound, 0, alias.name, "" if alias.asname else ".", 0)
            else:
                bound = alias.asname or alias.name
                entry = Import("" if bound == "*" else bound, level, module, alias.name, 0)
            if bound != "*":
                self._bind(bound)
            self._add_import(entry)

    def _add_import(self, entry: Import) -> None:
        entry.flags |= (DEFERRED if self._functions else 0) | (GUARDED if self._guards else 0)
        if entry.bound and self._scope.kind != "module":
            self._scope.imports.setdefault(entry.bound, []).append(entry)
        self._imports.append(entry)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _last_name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _fields_of(kind: type[ast.AST]) -> tuple[str, ...]:
    known = _FIELDS.get(kind)
    if known is None:
        known = _FIELDS[kind] = tuple(name for name in kind._fields if name not in _SKIPPED)
    return known


_FIELDS: dict[type[ast.AST], tuple[str, ...]] = {}
_HANDLERS: dict[type[ast.AST], Callable[[Visitor, Any], None]] = {
    ast.Name: Visitor._name,
    ast.Attribute: Visitor._attribute,
    ast.Constant: Visitor._constant,
    ast.Call: Visitor._call,
    ast.keyword: Visitor._keyword,
    ast.Subscript: Visitor._subscript,
    ast.AnnAssign: Visitor._annotated,
    ast.AugAssign: Visitor._augmented,
    ast.NamedExpr: Visitor._named,
    ast.arg: Visitor._argument,
    ast.FunctionDef: Visitor._function,
    ast.AsyncFunctionDef: Visitor._function,
    ast.Lambda: Visitor._lambda,
    ast.ClassDef: Visitor._class,
    ast.ListComp: Visitor._comprehension,
    ast.SetComp: Visitor._comprehension,
    ast.DictComp: Visitor._comprehension,
    ast.GeneratorExp: Visitor._comprehension,
    ast.Global: Visitor._declares,
    ast.Nonlocal: Visitor._declares,
    ast.ExceptHandler: Visitor._captures,
    ast.MatchAs: Visitor._captures,
    ast.MatchStar: Visitor._captures,
    ast.MatchMapping: Visitor._captures,
    ast.Try: Visitor._guarded,
    ast.With: Visitor._guarded,
    ast.AsyncWith: Visitor._guarded,
    ast.Import: Visitor._import,
    ast.ImportFrom: Visitor._import,
}
if hasattr(ast, "TryStar"):
    _HANDLERS[ast.TryStar] = Visitor._guarded

"""What of a Python module may change a result: its syntax tree without docstrings and labmake's own statements."""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from labmake.frozen import frozen


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


DECLARATIONS = frozenset({"rule", "source", "group"})
"""Calls that only tell the coordinator something; in a step they do nothing."""

PURE = word_set(
    "bool dict enumerate float frozenset int len list max min range reversed round set sorted str sum tuple zip"
)
"""Builtins that may compute an argument of a declaration without leaving anything behind."""

SILENT_DECORATORS = word_set(
    "property staticmethod classmethod setter getter deleter abstractmethod overload override final cache "
    "lru_cache cached_property wraps singledispatch contextmanager total_ordering dataclass"
)
SILENT_BASES = word_set("ABC Protocol NamedTuple TypedDict Generic Enum IntEnum StrEnum Flag IntFlag")
"""Decorators and bases that are known not to make a result of a docstring. Others may: a base class can send its
subclass's docstring to a language model as the prompt."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = Function | ast.ClassDef


@frozen
class Normal:
    """A module in three parts, each as text: what always counts, docstrings, and what counts only for importers."""

    body: str
    docs: str
    declared: str
    """Plan functions and labmake's imports: nothing in the module uses them, but another module could import them."""
    plans: tuple[str, ...]
    """Names of the functions in `declared`."""


@frozen
class _Labmake:
    names: dict[str, str]
    """local name → labmake's name."""
    modules: frozenset[str]
    bound: Counter[str]

    def call(self, node: ast.AST, among: frozenset[str] | None = None) -> bool:
        """Is `node` a call of a labmake function (one of `among`)?"""
        if not isinstance(node, ast.Call):
            return False
        name = None
        if isinstance(node.func, ast.Name):
            name = self.names.get(node.func.id)
        elif (
            isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id in self.modules
        ):
            name = node.func.attr
        return name is not None and (among is None or name in among)

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
            return function.id in PURE and function.id not in self.bound
        return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Constant | ast.JoinedStr)


def normalise(tree: ast.Module) -> Normal:
    """The parts of a module that count; changes `tree`.

    Raises ValueError or RecursionError for the rare tree that has no text (huge integers, very deep nesting).
    """
    labmake = _labmake_names(tree)
    dropped: list[ast.stmt] = []
    if labmake.names or labmake.modules:
        dropped = _drop_declarations(tree, labmake)
    docs: list[tuple[str, str]] = []
    _take_docstring(tree, "", docs)
    _take_docstrings(tree, "", docs)
    return Normal(
        ast.dump(tree, annotate_fields=False),
        repr(docs),
        repr([ast.dump(node, annotate_fields=False) for node in dropped]),
        tuple(node.name for node in dropped if isinstance(node, Function)),
    )


def blocks(node: ast.AST) -> Iterator[list[ast.stmt]]:
    """The statement lists of a compound statement that run in the scope it stands in."""
    if isinstance(node, Scope):
        return
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            yield block
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        yield part.body


def bindings(node: ast.AST) -> list[str]:
    """The names that this one node binds, in whatever scope."""
    if isinstance(node, ast.Name):
        return [] if isinstance(node.ctx, ast.Load) else [node.id]
    if isinstance(node, Scope):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [_bound_name(alias) for alias in node.names]
    if isinstance(node, ast.Global):
        return list(node.names)
    if isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        return [node.name] if node.name else []
    if isinstance(node, ast.MatchMapping):
        return [node.rest] if node.rest else []
    return []


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        for block in blocks(statement):
            yield from _statements(block)


def _imports_labmake(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level == 0 and node.module == "labmake" and node.names[0].name != "*"
    return isinstance(node, ast.Import) and all(alias.name == "labmake" for alias in node.names)


def _labmake_names(tree: ast.Module) -> _Labmake:
    names: dict[str, str] = {}
    modules: set[str] = set()
    for node in filter(_imports_labmake, _statements(tree.body)):
        if isinstance(node, ast.ImportFrom):
            names.update({_bound_name(alias): alias.name for alias in node.names})
        elif isinstance(node, ast.Import):
            modules.update(_bound_name(alias) for alias in node.names)
    if not names and not modules:
        return _Labmake({}, frozenset(), Counter())
    bound = Counter(name for node in ast.walk(tree) for name in bindings(node))
    # A name bound a second time anywhere may no longer be labmake's when the statement runs.
    once = {local: name for local, name in names.items() if bound[local] == 1}
    return _Labmake(once, frozenset(name for name in modules if bound[name] == 1), bound)


def _drop_declarations(tree: ast.Module, labmake: _Labmake) -> list[ast.stmt]:
    """Take labmake's statements out of the module; return those that an importing module could still use."""
    candidates: dict[int, ast.stmt] = {}
    for statement in list(_statements(tree.body)):
        if isinstance(statement, Function):
            if _is_plan(statement, labmake):
                candidates[id(statement)] = statement
            statement.decorator_list = [
                decorator
                for decorator in statement.decorator_list
                if not (labmake.call(decorator, frozenset({"rule"})) and labmake.inert([decorator]))
            ]
        elif _imports_labmake(statement):
            candidates[id(statement)] = statement
    _filter(tree.body, lambda node: not _is_declaration(node, labmake))
    while True:
        used = set(_names_used(tree, candidates))
        revived = [key for key, node in candidates.items() if isinstance(node, Function) and node.name in used]
        if not revived:
            break
        for key in revived:
            del candidates[key]
    for key, node in list(candidates.items()):
        if isinstance(node, ast.Import | ast.ImportFrom):
            needed = [alias for alias in node.names if _bound_name(alias) in used]
            if needed:
                node.names = needed
                del candidates[key]
    _filter(tree.body, lambda node: id(node) not in candidates)
    return list(candidates.values())


def _is_declaration(node: ast.stmt, labmake: _Labmake) -> bool:
    return isinstance(node, ast.Expr) and labmake.call(node.value, DECLARATIONS) and labmake.inert([node.value])


def _is_plan(node: Function, labmake: _Labmake) -> bool:
    if len(node.decorator_list) != 1 or labmake.bound[node.name] != 1:
        return False
    arguments = node.args
    evaluated = [*node.decorator_list, *arguments.defaults, *arguments.kw_defaults]
    return labmake.call(node.decorator_list[0], frozenset({"plan"})) and labmake.inert(evaluated)


def _filter(body: list[ast.stmt], keep: Callable[[ast.stmt], bool]) -> None:
    for statement in body:
        for block in blocks(statement):
            if block:
                _filter(block, keep)
                if not block:
                    block.append(ast.Pass())
    body[:] = [statement for statement in body if keep(statement)]


def _names_used(tree: ast.Module, without: dict[int, ast.stmt]) -> Iterator[str]:
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if id(node) in without:
            continue
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Global | ast.Nonlocal):
            yield from node.names
        pending.extend(ast.iter_child_nodes(node))


def _take_docstrings(node: ast.AST, name: str, docs: list[tuple[str, str]]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Scope):
            inner = f"{name}.{child.name}"
            if _docstring_may_be_read(child):
                continue
            _take_docstring(child, inner, docs)
            _take_docstrings(child, inner, docs)
        elif not isinstance(child, ast.expr):
            _take_docstrings(child, name, docs)


def _take_docstring(node: Scope | ast.Module, name: str, docs: list[tuple[str, str]]) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        docs.append((name, first.value.value))
        node.body[:1] = [ast.Pass()] if len(node.body) == 1 and not isinstance(node, ast.Module) else []


def _docstring_may_be_read(node: Scope) -> bool:
    if any(_last_name(decorator) not in SILENT_DECORATORS for decorator in node.decorator_list):
        return True
    if not isinstance(node, ast.ClassDef):
        return False
    return bool(node.keywords) or not all(_is_silent_base(base) for base in node.bases)


def _is_silent_base(base: ast.expr) -> bool:
    name = _last_name(base)
    return name in SILENT_BASES or (isinstance(base, ast.Name) and hasattr(builtins, name))


def _last_name(node: ast.expr) -> str:
    while isinstance(node, ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""

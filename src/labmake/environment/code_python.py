"""What labmake knows of a Python file from its text alone, as JSON: imports, names, units."""

from __future__ import annotations

import ast
import builtins
import posixpath
from collections.abc import Iterable
from typing import Any

from labmake.environment.code_declarations import drop_declarations, imports_labmake, labmake_names
from labmake.environment.code_link import Modules
from labmake.environment.code_units import Table, Unit, pieces, table
from labmake.environment.code_visit import DEFERRED, Seen, Visitor
from labmake.environment.code_vocabulary import BINDS_UNSEEN, READS_ITSELF, sees
from labmake.errors import RuleError
from labmake.model import digest_of

BUILTINS = frozenset(dir(builtins))


def analyse(source: bytes, path: str) -> dict[str, Any]:
    """Everything labmake needs of a Python file, as JSON: {"facts": what follows, "units": see code_units.Table}.

    imports  list of [level, module, names]; `import a.b` is [0, "a.b", []]
    names    what the module binds at its top level, in order, without its plan functions
    open     true if it may bind other names too
    plans    its plan functions that nothing else in it uses
    all      strings in its `__all__`
    sees     0, or 1 if it uses docstrings and 2 if it uses source text or line numbers of its closure
    raw      true if only its bytes identify it
    body, docs, declared   digests of its statements; of its docstrings; of plan functions and imports of labmake that
             nothing in it uses, but another module could import
    runs     what it imports when it runs: [number of the unit, level, module, name ("" or "." for none), label, digest,
             docstrings]
    doc      its own docstring
    future   what it imports from __future__
    quiet    true if it does nothing when it runs and binds each name once, as long as none of `assumes`, modules that
             it imports, is of the project

    Units are False if the tree is too deep to be read. Raises RuleError when the file is not valid Python.
    """
    shadowed: frozenset[str] = frozenset()
    while True:
        tree = _parse(source, path)
        labmake = labmake_names(tree, shadowed)
        plans = {id(node) for node in tree.body if labmake.is_plan(node)}
        exported = _exported(tree)
        drop_declarations(tree, labmake)
        docs = _take_docstring(tree)
        visitor = Visitor()
        try:
            parts = list(pieces(tree.body, visitor, posixpath.basename(path) == "__main__.py"))
        except RecursionError:
            return {"facts": _unread(tree, exported), "units": False}
        wrong = labmake.misjudged(visitor.binds)
        if not wrong:
            break
        shadowed |= wrong
    loose = {index for index, (node, _, _) in enumerate(parts) if id(node) in plans or imports_labmake(node)}
    units = table([unit for _, _, units in parts for unit in units])
    facts = _facts(parts, loose, plans, exported, docs)
    facts["doc"] = docs
    facts["future"] = sorted({one.attr for unit in units for one in unit.imports if one.module == "__future__"})
    return {"facts": facts | _running(units), "units": units.kept()}


def _running(units: Table) -> dict[str, Any]:
    """`runs`, `quiet` and `assumes` of a module's units."""
    path = "alone.py"
    runs = [
        [number, one.level, one.module, one.attr, unit.label, unit.digest, unit.docs]
        for number, unit in enumerate(units)
        for one in unit.imports
        if not one.flags & DEFERRED
    ]
    alone = Modules([path], [], lambda _: {"quiet": False, "assumes": (), "runs": ()}, lambda _: units)
    steady = all(len(numbers) == 1 and name not in BUILTINS for name, numbers in units.bound.items())
    quiet = steady and not any(
        alone.is_effect((path, number)) or any(chain.endswith(".register") for chain in unit.calls)
        for number, unit in enumerate(units)
    )
    assumes: set[str] = set()
    for unit in units if quiet else ():
        for chain in {*unit.calls, *unit.bases, *unit.touched, *unit.now}:
            for item in alone.meaning(path, chain).passed:
                imports = units.unit(item[1]).imports
                assumes.update(one.module for one in imports)
                quiet = quiet and not any(one.level for one in imports)
    return {"runs": runs, "quiet": quiet, "assumes": sorted(assumes)}


def _facts(
    parts: list[tuple[ast.stmt, Seen, list[Unit]]], loose: set[int], plans: set[int], exported: list[str], docs: str
) -> dict[str, Any]:
    unused = _unused(parts, loose)
    seen = [one for _, one, _ in parts]
    names = dict.fromkeys([name for one in seen for name in sorted(one.globals)])
    names |= dict.fromkeys(name for one in seen for name in one.names)
    idle = [name for index in sorted(unused) if id(parts[index][0]) in plans for name in seen[index].names]
    words = set().union(*(one.words for one in seen)) if seen else set()
    stars = any(entry.attr == "*" for one in seen for entry in one.imports)
    plain = {word.strip("=@") for word in words}
    return {
        "imports": _imports(seen),
        "all": exported,
        "names": [name for name in names if name not in idle],
        "plans": idle,
        "open": stars or bool(plain & BINDS_UNSEEN),
        "raw": any(f"={word}" in words for word in READS_ITSELF) or bool(words & {"__dict__", "get_data"}),
        "sees": sees(words),
        "body": _digest(one.digest for index, one in enumerate(seen) if index not in unused),
        "docs": _digest([docs, *(one.docs for one in seen if one.docs)]),
        "declared": _digest(one.digest for index, one in enumerate(seen) if index in unused),
    }


def _unused(parts: list[tuple[ast.stmt, Seen, list[Unit]]], loose: set[int]) -> set[int]:
    """Of the plan functions and imports of labmake in `loose` those that nothing else in the module uses."""
    unused = set(loose)
    while True:
        used = {
            chain.partition(".")[0]
            for index, (_, seen, _) in enumerate(parts)
            if index not in unused
            for chain in (*seen.uses, *seen.globals)
        }
        revived = {index for index in unused if used.intersection(parts[index][1].names)}
        if not revived:
            return unused
        unused -= revived


def _digest(texts: Iterable[str]) -> str:
    return digest_of("\n".join(texts).encode())


def _imports(seen: Iterable[Seen]) -> list[list[Any]]:
    found: dict[tuple[int, str, bool], dict[str, None]] = {}
    for entry in (entry for one in seen for entry in one.imports):
        name = entry.attr if entry.attr not in ("", ".") else ""
        names = found.setdefault((entry.level, entry.module, name == "*"), {})
        if name:
            names[name] = None
    return [[level, module, list(names)] for (level, module, _), names in found.items()]


def _take_docstring(tree: ast.Module) -> str:
    """A module's docstring; it is no longer in the tree."""
    match tree.body:
        case [ast.Expr(value=ast.Constant(value=str(text))), *rest]:
            tree.body[:] = rest
            return repr(text)
    return ""


def _unread(tree: ast.Module, exported: list[str]) -> dict[str, Any]:
    """The facts of a module whose tree is too deep to be read: what it imports, and that anything may happen."""
    imports: list[list[Any]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [[0, alias.name, []] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append([node.level, node.module or "", [alias.name for alias in node.names]])
    nothing: dict[str, Any] = dict.fromkeys(("body", "docs", "declared", "doc"), "")
    nothing |= {"runs": [], "quiet": False, "assumes": [], "future": [], "names": [], "plans": []}
    return {"imports": imports, "all": exported, "open": True, "raw": True, "sees": 2, **nothing}


def _parse(source: bytes, path: str) -> ast.Module:
    try:
        return ast.parse(source, path)
    except SyntaxError as error:
        line = error.lineno or 0
        facts: list[tuple[str, object]] = [("file", f"{path}:{line}" if line else path), ("reason", error.msg)]
        text = (error.text or "").rstrip("\n")
        if text.strip():
            caret = " " * max(0, (error.offset or 1) - 1) + "^"
            facts.append(("line", f"{text}\n{caret}"))
        raise RuleError(f"{path} is not valid Python", facts, ["correct the line"]) from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "nested too deeply"
        raise RuleError(f"{path} is not valid Python", [("file", path), ("reason", reason)], ["correct it"]) from None


def _exported(tree: ast.Module) -> list[str]:
    """The strings in all statements about `__all__`: a star import imports the submodules they name."""
    found: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr):
            nodes = list(ast.walk(statement))
            if any(isinstance(node, ast.Name) and node.id == "__all__" for node in nodes):
                found += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found

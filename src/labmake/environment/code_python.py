"""What labmake knows of a Python file from its text alone: imports, names, identities. JSON, so it can be kept."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from typing import Any

from labmake.environment.code_normal import Normal, Scope, bindings, normalise, word_set
from labmake.errors import RuleError
from labmake.model import digest_of

KIND = f"python {sys.version_info[0]}.{sys.version_info[1]} 1"
"""Names this analysis in a memo: trees differ between Python versions; the last number is raised with the code."""

READS_SOURCE = word_set(
    "getsource getsourcelines findsource getcomments getblock linecache doctest traceback format_exc print_exc "
    "co_firstlineno co_lines f_lineno tb_lineno lineno _getframe currentframe findCaller __code__ cloudpickle "
    "dill"
)
"""Words by which a module sees the text, comments or line numbers of any module of its closure."""

READS_SOURCE_PAIRS = (("inspect", "stack"), ("inspect", "trace"), ("torch", "jit"))
"""The same, for words that mean something else alone (numpy.stack, numba.jit)."""

READS_DOCSTRINGS = word_set(
    "__doc__ getdoc docopt pydoc docstring_parser jsonargparse tools get_json_schema from_function dspy"
)
"""Words by which a module makes something of docstrings; language models are told their tools by docstring."""

READS_ITSELF = word_set("__file__ __loader__ __spec__ exec eval compile globals locals vars __dict__ get_data")
"""Names by which a module may see more of itself than its syntax tree."""

BINDS_UNSEEN = frozenset(["__dict__", "__getattr__", "exec", "globals", "modules", "vars"])
"""Words by which a module may bind names that its text does not show."""

Facts = dict[str, Any]


def analyse(source: bytes, path: str) -> Facts:
    """Everything labmake needs of a Python file, as a JSON object:

    imports  list of [level, module, names]; `import a.b` is [0, "a.b", []]
    names    what the module binds at its top level, in order, without its plan functions
    open     true if it may bind other names too
    plans    its plan functions that nothing else in it uses
    all      strings in its `__all__`
    sees     0, or 1 if it uses docstrings and 2 if it uses source text or line numbers of its closure
    raw      true if only its bytes identify it
    body, docs, declared   digests of the parts of labmake.environment.code_normal.Normal

    Raises RuleError when the file is not valid Python.
    """
    tree = _parse(source, path)
    names = list(dict.fromkeys(_top_level_names(tree)))
    facts: Facts = {"imports": _imports(tree), "all": _exported(tree), "raw": False}
    normal = Normal("", "", "", ())
    try:
        normal = normalise(tree)
    except (ValueError, RecursionError):
        facts["raw"] = True
    words, plain = _words(tree)
    facts["names"] = [name for name in names if name not in normal.plans and name != "*"]
    facts["plans"] = list(normal.plans)
    facts["open"] = "*" in names or bool((words | plain) & BINDS_UNSEEN)
    facts["raw"] = facts["raw"] or bool(plain & READS_ITSELF or words & {"__dict__", "get_data"})
    facts["sees"] = 2 if _reads_source(words, plain) else 1 if (words | plain) & READS_DOCSTRINGS else 0
    for part in ("body", "docs", "declared"):
        facts[part] = digest_of(getattr(normal, part).encode("utf-8", "surrogatepass"))
    return facts


def _reads_source(words: set[str], plain: set[str]) -> bool:
    both = words | plain
    if both & READS_SOURCE or any(both.issuperset(pair) for pair in READS_SOURCE_PAIRS):
        return True
    # Another module's file, by attribute or by name, can be opened and read as text.
    return "__file__" in words or any(word.endswith(".py") for word in words)


def identity(facts: Facts, digest: str, sees: int, imported: bool) -> str:
    """What identifies a file in a closure whose files see as much as `sees`; `imported`: by another file of it."""
    if facts["raw"] or sees == 2:
        return digest
    text = f"{KIND}\n{facts['body']}\n{facts['docs'] if sees else ''}\n{facts['declared'] if imported else ''}\n"
    return digest_of(text.encode())


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


def _words(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The words of a module, and those that stand as plain names.

    Strings that are identifiers or name Python files are words too: `getattr(f, "__doc__")`, `open("src/a.py")`.
    """
    words: set[str] = set()
    loaded: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name():
                loaded.add(node.id)
            case ast.Attribute():
                words.add(node.attr)
            case ast.keyword(arg=str(name)):
                words.add(name)
            case ast.alias():
                words.update(node.name.split("."))
            case ast.ImportFrom(module=str(module)):
                words.update(module.split("."))
            case ast.Constant(value=str(text)) if text.isidentifier() or text.endswith(".py"):
                words.add(text)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                words.add(node.name)
    return words, loaded


def _imports(tree: ast.Module) -> list[list[Any]]:
    found: dict[tuple[int, str, tuple[str, ...]], None] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                for alias in node.names:
                    found[(0, alias.name, ())] = None
            case ast.ImportFrom():
                found[(node.level, node.module or "", tuple(alias.name for alias in node.names))] = None
            case ast.Call(
                func=ast.Attribute(attr=name) | ast.Name(id=name), args=[ast.Constant(value=str(module)), *_]
            ):
                if name in ("import_module", "__import__", "run_module"):
                    level = len(module) - len(module.lstrip("."))
                    found[(level, module.lstrip("."), ())] = None
    return [[level, module, list(names)] for level, module, names in found]


def _exported(tree: ast.Module) -> list[str]:
    """The strings in all statements about `__all__`: a star import imports the submodules they name."""
    found: list[str] = []
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr):
            nodes = list(ast.walk(statement))
            if any(isinstance(node, ast.Name) and node.id == "__all__" for node in nodes):
                found += [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return found


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield from node.names
    pending: list[ast.AST] = list(reversed(tree.body))
    inner = (Scope, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    while pending:
        node = pending.pop()
        yield from bindings(node)
        if not isinstance(node, inner):
            pending.extend(reversed(list(ast.iter_child_nodes(node))))

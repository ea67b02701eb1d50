"""Loading rule files: script.py and rules.py become rules, quickly and with errors that name the user's line.

Annotations are postponed, and imports of anything but the standard library and labmake wait until a name is used, so
`import pandas` at the top costs nothing while rules are read, and a plan that needs it imports it then.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType
from typing import Any

from labmake import api
from labmake.engine.broken import broken, line_in
from labmake.engine.rulebook import RuleFile
from labmake.errors import LabmakeError, RuleError, Where
from labmake.frozen import frozen
from labmake.layout import Project, script_folder


def rule_file(experiment: str) -> str:
    """The project path of an experiment's rule file; rules.py for ""."""
    return f"{script_folder(experiment)}/script.py" if experiment else "rules.py"


def load(project: Project, experiment: str, looked: LookedAt | None = None) -> RuleFile:
    """The rules that a rule file declares; none if there is no such file. `looked` learns what was read for it.

    Raises RuleError for a syntax error, an exception while it is read, and rules that cannot be.
    """
    file = rule_file(experiment)
    path = project.root / file
    looked = looked or LookedAt()
    looked.paths.add(str(path))
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        return RuleFile()
    except OSError as error:
        reason: list[tuple[str, object]] = [("reason", error.strerror)]
        raise RuleError(
            f"{file} cannot be read", reason, ["it has to be a file that you may read"], Where(file)
        ) from None
    code, lazy = _compiled(source, file, str(path))
    into = api.Loading(experiment, file, project.root)
    search = Search((path.parent, project.root / "src", project.root), looked)
    _run(code, lazy, into, str(path), search)
    return RuleFile(tuple(into.rules), dict(into.groups))


def _compiled(source: bytes, file: str, path: str) -> tuple[CodeType, dict[str, ast.stmt]]:
    """The code of a rule file without its lazy imports, and these by the name that they bind."""
    try:
        tree = ast.parse(source, path)
        lazy: dict[str, ast.stmt] = {}
        kept: list[ast.stmt] = []
        for statement in tree.body:
            waiting = _lazy_names(statement)
            lazy.update(waiting)
            if not waiting:
                kept.append(statement)
        tree.body = kept
        flags = __future__.annotations.compiler_flag
        return compile(tree, path, "exec", flags=flags, dont_inherit=True), lazy
    except SyntaxError as error:
        shown = [("line", pointed)] if (pointed := _pointed(error)) else []
        raise RuleError(
            f"{file} is no valid Python",
            [("error", error.msg), *shown],
            ["correct it; nothing was run"],
            Where(file, error.lineno or 0),
        ) from None
    except (ValueError, RecursionError, MemoryError) as error:
        facts = [("error", error)]
        raise RuleError(f"{file} is no valid Python", facts, ["correct it; nothing was run"], Where(file)) from None


WIDE = 100
"""Characters of a faulty line that are shown before and after the fault."""


def _pointed(error: SyntaxError) -> str:
    """The faulty line with a caret below the fault; of a long line what is near it."""
    line = (error.text or "").rstrip("\n")
    column = max((error.offset or 1) - 1, 0)
    start = max(0, column - WIDE)
    return f"{line[start : column + WIDE]}\n{' ' * (column - start)}^" if line.strip() else ""


def _lazy_names(statement: ast.stmt) -> dict[str, ast.stmt]:
    """The names that an import binds, each with an import of it alone; none if it has to run while the file is read."""
    if isinstance(statement, ast.Import):
        if any(_is_eager(alias.name) for alias in statement.names):
            return {}
        return {
            alias.asname or alias.name.split(".")[0]: ast.copy_location(ast.Import([alias]), statement)
            for alias in statement.names
        }
    if isinstance(statement, ast.ImportFrom):
        if statement.level or _is_eager(statement.module or "") or statement.names[0].name == "*":
            return {}
        return {
            alias.asname or alias.name: ast.copy_location(ast.ImportFrom(statement.module, [alias], 0), statement)
            for alias in statement.names
        }
    return {}


def _is_eager(module: str) -> bool:
    top = module.split(".")[0]
    return top in sys.stdlib_module_names or top == "labmake"


class _Globals(dict[str, Any]):
    """The names of a rule file; one that a lazy import binds is imported when it is first looked up."""

    def __init__(self, names: dict[str, Any], lazy: dict[str, ast.stmt], path: str, search: Search) -> None:
        super().__init__(names)
        self._lazy, self._path, self._search = lazy, path, search

    def __missing__(self, name: str) -> Any:
        if name not in self._lazy:
            raise KeyError(name)
        statement = self._lazy[name]
        module = ast.Module([statement], [])
        bound: dict[str, Any] = {"__builtins__": builtins}
        with self._search.entered():
            exec(compile(ast.fix_missing_locations(module), self._path, "exec"), bound)
        self[name] = bound[name]
        return bound[name]


def _run(code: CodeType, lazy: dict[str, ast.stmt], into: api.Loading, path: str, search: Search) -> None:
    name = "rules" if not into.experiment else "script"
    names = _Globals({"__name__": name, "__file__": path, "__builtins__": builtins}, lazy, path, search)
    api.loading, before = into, api.loading
    try:
        with search.entered():
            exec(code, names)
        api.check_complete(into)
    except LabmakeError as error:
        error.where = error.where or line_in(error, Where(into.file))
        raise
    except SystemExit as error:
        raise RuleError(
            f"{into.file} ended the process while it was read",
            [("exit code", error.code)],
            ["take the exit out: what shall run belongs in a step"],
            line_in(error, Where(into.file)),
        ) from None
    except Exception as error:
        raise broken(error, f"{into.file} failed while it was read", Where(into.file)) from None
    finally:
        api.loading = before


@dataclass
class LookedAt:
    """What was read while rule files were: absolute paths of files and folders, and environment variables."""

    paths: set[str] = field(default_factory=set)
    variables: dict[str, str | None] = field(default_factory=dict)


@frozen
class Search:
    """Where modules are looked for while a rule file is read, and who learns what was looked at."""

    folders: Sequence[Path]
    looked: LookedAt

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """While it is entered, modules are looked for in the folders first, and what is opened or asked is noted.

        Modules of an experiment's own folder are forgotten afterwards: another may have some of the same names.
        """
        before, bytecode, known = list(sys.path), sys.dont_write_bytecode, set(sys.modules)
        sys.path[:0] = [str(folder) for folder in self.folders]
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        try:
            with _noting(self.looked):
                yield
        finally:
            sys.path[:] = before
            sys.dont_write_bytecode = bytecode
            own = str(self.folders[0]) + os.sep
            for module in set(sys.modules) - known:
                if (getattr(sys.modules[module], "__file__", None) or "").startswith(own):
                    del sys.modules[module]


_noted: LookedAt | None = None
_hooked = False


@contextlib.contextmanager
def _noting(looked: LookedAt) -> Iterator[None]:
    global _noted, _hooked
    if not _hooked:
        sys.addaudithook(_note)
        _hooked = True
    before, _noted = _noted, looked
    plain = type(os.environ)
    os.environ.__class__ = _Environ
    try:
        yield
    finally:
        os.environ.__class__ = plain
        _noted = before


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook: what is opened or listed while a rule file is read, imports included."""
    if _noted is not None and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
        _noted.paths.add(os.path.abspath(os.fsdecode(arguments[0])))


class _Environ(type(os.environ)):  # type: ignore[misc]
    """The environment while a rule file is read: notes which variables are asked for."""

    def __getitem__(self, key: str) -> str:
        if _noted is not None:
            _noted.variables[key] = None
        value: str = super().__getitem__(key)
        if _noted is not None:
            _noted.variables[key] = value
        return value

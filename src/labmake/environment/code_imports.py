"""The project files that Python files import, directly or not, and what identifies each of them."""

from __future__ import annotations

from collections.abc import Sequence

from labmake.environment.code_closure import Closure, CodeFile, Texts
from labmake.environment.code_identity import KIND, Facts, identity
from labmake.environment.code_tree import Tree, find_dotted, relative_base
from labmake.model import Digest, Json


def facts_of(texts: Texts, path: str) -> tuple[Digest, Facts]:
    """A Python file's digest and labmake.environment.code_python.analyse of it. Raises RuleError for a syntax error."""
    return part_of(texts, path, "facts")


def part_of(texts: Texts, path: str, part: str) -> tuple[Digest, Json]:
    """The same with another part of the analysis: "units"."""
    return texts.read(path, KIND, _analyse, part)


def _analyse(source: bytes, path: str) -> Json:
    import gc

    from labmake.environment.code_python import analyse  # a command that finds nothing changed needs no syntax trees

    # A tree of 9 000 nodes looks like a leak to the collector, which costs a tenth of the analysis.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return analyse(source, path)
    finally:
        if collecting:
            gc.enable()


def python_closure(texts: Texts, tree: Tree, files: Sequence[str], roots: Sequence[str]) -> Closure:
    """These Python files and all that they import from the project, with `roots` as Python's path.

    Raises RuleError for a syntax error in any of them.
    """
    pending = list(files)
    found: dict[str, CodeFile] = {}
    modules: dict[str, tuple[Digest, Facts]] = {}
    imported: set[str] = set()
    while pending:
        path = pending.pop()
        if path in modules or path in found:
            continue
        if path not in files and not path.endswith(".py"):
            found[path] = texts.bytes_only(path)
            continue
        modules[path] = facts_of(texts, path)
        targets = _imported(texts, tree, path, roots)
        imported.update(targets)
        pending += targets
    # One module that reads docstrings or source text may read those of all others.
    sees = max((facts["sees"] for _, facts in modules.values()), default=0)
    for path, (digest, facts) in modules.items():
        found[path] = CodeFile(path, digest, identity(facts, digest, sees, path in imported))
    return Closure(tuple(found[path] for path in sorted(found)))


def _imported(texts: Texts, tree: Tree, path: str, roots: Sequence[str]) -> list[str]:
    found: list[str] = []
    for level, module, names in facts_of(texts, path)[1]["imports"]:
        if level == 0 and module.partition(".")[0] == "labmake":
            continue
        base = relative_base(tree, path, level) if level else ([], "")
        if base is None:
            continue
        inits, folder = base
        files, places = find_dotted(tree, module, [folder] if level else roots)
        found += [*inits, *files]
        if names == ["*"]:
            names = _exported(texts, files or inits)
        for name in names if places else ():
            found += find_dotted(tree, name, places)[0]
    return found


def _exported(texts: Texts, files: list[str]) -> list[str]:
    """The submodules that a star import of the last of these files may import."""
    if not files or not files[-1].endswith("/__init__.py"):
        return []
    names: list[str] = facts_of(texts, files[-1])[1]["all"]
    return [name for name in names if name.isidentifier()]

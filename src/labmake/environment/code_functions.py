"""The identity of a function: what of each file of its closure it can reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from labmake.environment.code_closure import Closure, CodeFile, Texts
from labmake.environment.code_identity import KIND, Facts, identity
from labmake.environment.code_imports import facts_of, part_of
from labmake.frozen import frozen
from labmake.model import Digest, canonical, digest_of

if TYPE_CHECKING:  # a command that finds nothing changed links nothing
    from labmake.environment.code_link import Modules
    from labmake.environment.code_units import Table

LINKED = f"{KIND} linked 1"
"""Names this analysis in a memo; the last number is raised with the code."""


@frozen
class Function:
    """A function to be called: its file, its dotted name, and whether one of its inputs is a pickle file."""

    file: str
    name: str
    pickled: bool = False


@frozen
class Explained:
    """Of one unit or file that counts: its lines (1 based, both included), through what it is reached from the function
    (the function first), and why all of its file counts, "" if not."""

    first: int
    last: int
    path: list[str]
    whole: str


class Functions:
    """The functions of a project in one state. `keep` stores the text that an identity is the digest of."""

    def __init__(self, texts: Texts, keep: Callable[[bytes], Digest]) -> None:
        self._texts = texts
        self._keep = keep
        self._modules: dict[tuple[str, ...], Modules] = {}
        self._stems: dict[tuple[str, ...], str] = {}

    def closure(self, function: Function, closure: Closure, roots: Sequence[str]) -> Closure:
        """The files of a closure, each identified by what of it the function can reach; `roots` is Python's path."""
        key = (function.file, *roots)
        if key not in self._stems:
            state = [[file.path, file.digest] for file in closure.files]
            self._stems[key] = digest_of(canonical([function.file, list(roots), state]).encode())

        def find() -> list[list[str]]:
            from labmake.environment.code_reach import reach, rows

            modules = self.modules(function, closure, roots)
            reached = reach(modules, function.file, function.name, function.pickled)
            found = rows(modules, reached, self._whole)
            return [[path, self._keep(text.encode("utf-8", "surrogatepass"))] for path, text in found]

        stem = f"{self._stems[key]} {LINKED} {function.name}{' pickled' * function.pickled}"
        identities: dict[str, str] = dict(self._texts.recall(stem, find))
        return Closure(tuple(CodeFile(f.path, f.digest, identities.get(f.path, "")) for f in closure.files))

    def modules(self, function: Function, closure: Closure, roots: Sequence[str]) -> Modules:
        """The linked modules of a closure."""
        from labmake.environment.code_link import Modules

        key = (function.file, *roots)
        if key not in self._modules:
            self._modules[key] = Modules([file.path for file in closure.files], roots, self._facts, self._units)
        return self._modules[key]

    def explained(self, function: Function, closure: Closure, roots: Sequence[str], path: str) -> dict[str, Explained]:
        """Every unit of a file by its label, as far as the function reaches it, and "*" for the file itself."""
        from labmake.environment.code_reach import path_to, reach

        modules = self.modules(function, closure, roots)
        reached = reach(modules, function.file, function.name, function.pickled)
        whole = reached.whole.get(path, "")
        found = {"*": Explained(1, 0, [], whole)}
        for number, unit in enumerate(modules.table(path)):
            if (path, number) in reached.via:
                way = path_to(modules, reached, (path, number))
                found.setdefault(unit.label, Explained(unit.first, unit.last, way, whole))
        return found

    def _facts(self, path: str) -> Facts:
        return facts_of(self._texts, path)[1]

    def _units(self, path: str) -> Table | None:
        from labmake.environment.code_units import table_of

        found = part_of(self._texts, path, "units")[1]
        return None if found is False else table_of(found)

    def _whole(self, path: str, sees: int) -> str:
        if not path.endswith(".py"):
            return self._texts.bytes_only(path).digest
        digest, facts = facts_of(self._texts, path)
        return identity(facts, digest, sees, True)

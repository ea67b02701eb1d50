"""The modules of one closure: what names mean across them, and which of their statements are pure."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from labmake.environment.code_identity import Facts
from labmake.environment.code_silent import METHODS, is_silent, is_silent_base, is_silent_builtin
from labmake.environment.code_tree import Tree, find_module, join, relative_base
from labmake.environment.code_units import Imported, Table, Unit, table
from labmake.environment.code_visit import DEFERRED

Item = tuple[str, int]
"""A unit by its file and number."""


_NONE = table([])


class Place(NamedTuple):
    """A module of the project: its file ("" for a namespace package), and the folders of its submodules."""

    file: str
    folders: tuple[str, ...]


@dataclass(slots=True)
class Meaning:
    """What a chain of names may mean: the units passed and reached, each with the attributes that are left at the end;
    modules as values; names from outside of the project."""

    passed: dict[Item, None] = field(default_factory=dict)
    ends: list[tuple[Item, str]] = field(default_factory=list)
    modules: list[Place] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    hooked: bool = False
    """A module's own __getattr__ may be asked."""

    @property
    def is_open(self) -> bool:
        """May it mean something that is not listed here?"""
        return self.hooked or not (self.ends or self.modules or self.outside)


class Modules:
    """The files of one closure and what their names mean.

    `facts` and `units` give those of a file (see code_python.analyse), None for units that are unknown.

    Everything follows from the files and from `roots`, Python's path, alone.
    """

    def __init__(
        self,
        files: Iterable[str],
        roots: Sequence[str],
        facts: Callable[[str], Facts],
        units: Callable[[str], Table | None],
    ) -> None:
        self.files = frozenset(files)
        self.roots = list(roots)
        self.tree = _tree(self.files)
        self._facts = facts
        self._read = units
        self._tables: dict[str, Table] = {}
        self._unread: set[str] = set()
        self._quiet: dict[str, bool] = {}
        self._imported: dict[tuple[str, int, str, str], list[str]] = {}
        self._meanings: dict[tuple[str, str], Meaning] = {}
        self._places: dict[tuple[str, int, str], tuple[list[str], Place | None]] = {}
        self._pure: dict[Item, bool] = {}
        self._tainted: dict[Item, bool] = {}

    # --- modules ----------------------------------------------------------------------------------------------------

    def table(self, file: str) -> Table:
        """The units of a file; none of one that is no Python text."""
        found = self._tables.get(file)
        if found is None:
            read = self._read(file) if file.endswith(".py") else _NONE
            if read is None:
                self._unread.add(file)
            found = self._tables[file] = read or _NONE
        return found

    def unit(self, item: Item) -> Unit:
        return self.table(item[0]).unit(item[1])

    def is_unread(self, file: str) -> bool:
        """Is a file's text too deep to tell its units?"""
        self.table(file)
        return file in self._unread

    def facts(self, file: str) -> Facts:
        """See code_python.analyse."""
        return self._facts(file)

    def is_quiet(self, file: str) -> bool:
        """Is it known without a look at its units that a module does nothing when it runs, and binds each name once?"""
        found = self._quiet.get(file)
        if found is None:
            facts: Facts = self._facts(file) if file.endswith(".py") else {"quiet": False, "assumes": []}
            # What its text alone tells holds if these modules are none of the project's.
            alone = all(self.place(file, 0, module)[1] is None for module in facts["assumes"])
            found = self._quiet[file] = bool(facts["quiet"]) and alone
        return found

    def runs(self, file: str) -> Iterator[tuple[int, list[str], list[str]]]:
        """What a module imports when it runs: the units that do, the files that each runs, and its row (code_reach)."""
        for number, level, module, attr, *row in self._facts(file)["runs"] if file.endswith(".py") else ():
            yield number, self.imported(file, level, module, attr), row

    def place(self, file: str, level: int, module: str) -> tuple[list[str], Place | None]:
        """The files that an import of `module` in `file` runs, and the module; None if it is not of the project."""
        key = (file if level else "", level, module)
        if key not in self._places:
            self._places[key] = self._find(file, level, module)
        return self._places[key]

    def _find(self, file: str, level: int, module: str) -> tuple[list[str], Place | None]:
        if level == 0 and module.partition(".")[0] == "labmake":
            return [], None
        run: list[str] = []
        place = Place("", tuple(self.roots))
        if level:
            base = relative_base(self.tree, file, level)
            if base is None:
                return [], None
            run, folder = list(base[0]), base[1]
            init = join(folder, "__init__.py")
            place = Place(init if init in self.files else "", (folder,))
        for name in module.split(".") if module else ():
            below = self.submodule(place, name)
            if below is None:
                return run, None
            place = below
            run += [place.file] if place.file else []
        return run, place

    def submodule(self, place: Place, name: str) -> Place | None:
        """The module `name` in a package."""
        file, folders = find_module(self.tree, name, place.folders)
        if file is None and not any(self._holds(folder) for folder in folders):
            return None
        return Place(file or "", tuple(folders))

    def _holds(self, folder: str) -> bool:
        files, folders = self.tree.listing(folder)
        return bool(files or folders)

    def imported(self, file: str, level: int, module: str, attr: str) -> list[str]:
        """The files that an import of `module`, and of `attr` from it, runs."""
        key = (file if level else "", level, module, attr)
        found = self._imported.get(key)
        if found is None:
            run, place = self.place(file, level, module)
            found = self._imported[key] = list(run)
            names = [] if place is None or attr in ("", ".") else [attr]
            if place is not None and attr == "*":
                names = [name.partition(".")[0] for folder in place.folders for name in self._names_in(folder)]
            for name in names:
                below = self.submodule(place, name) if place is not None else None
                found += [below.file] if below is not None and below.file else []
        return found

    def shadows(self) -> list[Place]:
        """The modules that installed packages may get instead of the standard library's."""
        found = []
        for root in self.roots:
            files, folders = self.tree.listing(root)
            names = {name.partition(".")[0] for name in files} | folders
            found += [self.submodule(Place("", (root,)), name) for name in sorted(names & sys.stdlib_module_names)]
        return [place for place in found if place is not None]

    def below(self, place: Place) -> list[str]:
        """The files of a module and of all that lie below it."""
        within = [file for folder in place.folders for file in sorted(self.files) if file.startswith(f"{folder}/")]
        return list(dict.fromkeys([*([place.file] if place.file else []), *within]))

    def _names_in(self, folder: str) -> Iterable[str]:
        files, folders = self.tree.listing(folder)
        return sorted(files | folders) if folder not in self.roots else ()

    # --- names ------------------------------------------------------------------------------------------------------

    def meaning(self, file: str, chain: str) -> Meaning:
        """What a chain of names means at the top level of a module."""
        found = self._meanings.get((file, chain))
        if found is None:
            found = Meaning()
            name, _, rest = chain.partition(".")
            if not self._resolve(file, name, rest, found, set()):
                found.outside.append(chain)
            self._meanings[(file, chain)] = found
        return found

    def _resolve(self, file: str, name: str, rest: str, into: Meaning, seen: set[tuple[str, str, str]]) -> bool:
        """Add what `name` means in a module to `into`; False if the module does not bind it."""
        if (file, name, rest) in seen:
            return True
        seen.add((file, name, rest))
        known = False
        table = self.table(file)
        for number in table.bound.get(name, ()):
            known = True
            unit = table.unit(number)
            into.passed[(file, number)] = None
            imports = [one for one in unit.imports if one.bound == name and not one.flags & DEFERRED]
            if unit.kind != "import":
                into.ends.append(((file, number), rest))
            for one in imports:
                self._through(file, one, rest, into, seen)
        for number in table.stars:
            into.passed[(file, number)] = None
            for one in table.unit(number).imports:
                known = (one.attr == "*" and self._star(file, one, name, rest, into, seen)) or known
        return known

    def _star(
        self, file: str, one: Imported, name: str, rest: str, into: Meaning, seen: set[tuple[str, str, str]]
    ) -> bool:
        _, place = self.place(file, one.level, one.module)
        if place is None:
            into.outside.append(f"{one.module}.*")
            return False
        known = False
        if place.file:
            for exported in self.table(place.file).bound.get("__all__", ()):
                into.passed[(place.file, exported)] = None
            known = self._resolve(place.file, name, rest, into, seen)
            known = self._hook(place.file, into) or known
        below = self.submodule(place, name)
        if below is not None:
            self._attributes(below, rest, into, seen)
            known = True
        return known

    def through(self, file: str, one: Imported, rest: str) -> Meaning:
        """What the attributes `rest` of something imported mean."""
        found = Meaning()
        self._through(file, one, rest, found, set())
        return found

    def _through(self, file: str, one: Imported, rest: str, into: Meaning, seen: set[tuple[str, str, str]]) -> None:
        """Add what an import binds, with the attributes `rest`."""
        module = one.module.partition(".")[0] if one.attr == "." else one.module
        _, place = self.place(file, one.level, module)
        attributes = ".".join(filter(None, ["" if one.attr in ("", ".") else one.attr, rest]))
        if place is not None:
            self._attributes(place, attributes, into, seen)
        elif one.level == 0:
            into.outside.append(".".join(filter(None, [module, attributes])))

    def _attributes(self, place: Place, chain: str, into: Meaning, seen: set[tuple[str, str, str]]) -> None:
        """Add what the attributes `chain` of a module mean."""
        name, _, rest = chain.partition(".")
        if not name or name == "__dict__":
            into.modules.append(place)
            return
        known = bool(place.file) and self._resolve(place.file, name, rest, into, seen)
        below = self.submodule(place, name)
        if below is not None and (place.file or place.folders):
            self._attributes(below, rest, into, seen)
        if not known and place.file:
            if not place.file.endswith(".py"):
                into.modules.append(place)
            self._hook(place.file, into)

    def _hook(self, file: str, into: Meaning) -> bool:
        numbers = self.table(file).bound.get("__getattr__", ())
        into.passed.update(((file, number), None) for number in numbers)
        into.hooked = into.hooked or bool(numbers)
        return bool(numbers)

    # --- effects ----------------------------------------------------------------------------------------------------

    def is_effect(self, item: Item) -> bool:
        """May this unit do more, when its module runs, than bind names?"""
        if self.is_quiet(item[0]):
            return False
        known = self._pure.get(item)
        if known is None:
            self._pure[item] = False  # while it is being asked: a circle is not known to be pure
            known = self._pure[item] = self._is_pure(*item)
        return not known

    def _is_pure(self, file: str, number: int) -> bool:
        unit = self.unit((file, number))
        if unit.kind in ("effect", "star"):
            return False
        if unit.kind == "import":
            return True
        return (
            all(self._may_call(file, chain, unit) for chain in unit.calls)
            and all(self._may_extend(file, chain) for chain in unit.bases)
            and not any(self._touches(file, chain) for chain in unit.touched)
        )

    def _may_call(self, file: str, chain: str, unit: Unit) -> bool:
        meaning = self.meaning(file, chain)
        if meaning.modules or meaning.is_open:
            return False
        for item, rest in meaning.ends:
            found = self.unit(item)
            dispatch = rest == "register" and "d" in found.marks and unit.kind == "function"
            method = rest in METHODS and found.kind == "constant" and "v" in found.marks
            if not (dispatch or (method and not self.is_tainted(item))):
                return False
        if "." not in chain and meaning.outside == [chain]:
            return is_silent_builtin(chain)
        return all(is_silent(dotted) for dotted in meaning.outside)

    def _may_extend(self, file: str, chain: str) -> bool:
        meaning = self.meaning(file, chain)
        if meaning.modules or meaning.is_open:
            return False
        for item, rest in meaning.ends:
            if self.unit(item).kind != "class" or rest or self.is_tainted(item):
                return False
        return all(is_silent_base(dotted) for dotted in meaning.outside)

    def _touches(self, file: str, chain: str) -> bool:
        meaning = self.meaning(file, chain)
        return meaning.is_open or any(self.is_tainted(item) for item, _ in meaning.ends)

    def dispatches(self, file: str, number: int) -> list[Item]:
        """The functions made by singledispatch to which a unit is added by `@f.register`."""
        if self.is_quiet(file):
            return []
        unit = self.unit((file, number))
        chains = [chain for chain in unit.calls if chain.endswith(".register")] if unit.kind == "function" else []
        ends = [end for chain in chains for end in self.meaning(file, chain).ends]
        return [item for item, rest in ends if rest == "register" and "d" in self.unit(item).marks]

    def is_tainted(self, item: Item) -> bool:
        """May using the value of this unit run code that its module's text does not show?"""
        known = self._tainted.get(item)
        if known is None:
            self._tainted[item] = True
            unit = self.unit(item)
            known = "h" in unit.marks or self.is_effect(item)
            if not known and unit.kind != "function":
                known = any(self._touches(item[0], chain) for chain in unit.now)
            self._tainted[item] = known
        return known


def _tree(files: Iterable[str]) -> Tree:
    """The project as it would be with these files alone: what else lies there is not asked for."""
    from pathlib import Path

    listed: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
    for path in files:
        folder, _, name = path.rpartition("/")
        listed.setdefault(folder, (set(), set()))[0].add(name)
        while folder:
            above, _, name = folder.rpartition("/")
            listed.setdefault(above, (set(), set()))[1].add(name)
            folder = above
    tree = Tree(Path("/nowhere"))
    tree.listed = {folder: (frozenset(names), frozenset(below)) for folder, (names, below) in listed.items()}
    return tree

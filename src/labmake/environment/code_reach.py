"""What a function can reach in its closure, and the identity that follows from it.

Only what is reached can run, so only what is reached can change a result. A function reaches what its names mean; a
module that is imported runs, with every statement that is not known to be pure; and where names are not all that
decides (a module handed on as a value, exec, pickle) the whole module or the whole closure is reached. That a name may
be bound at run time (`global`, `module.name = …`) needs no care of its own: what binds it has to be reached to run.

The rows of a file, one JSON list a line, are what of it counts:

    ["prior", digest, docstrings, before]   a unit that is reached
    ["*", identity]                         all of the file

Statements with effects, and names that are bound more than once, stand in the order of the file; `before` is how many
of them come before a unit whose value may depend on that, else -1. All other rows are sorted, so that definitions may
be moved.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from labmake.environment.code_link import Item, Meaning, Modules, Place
from labmake.environment.code_units import Imported, Unit
from labmake.environment.code_visit import DEFERRED, GUARDED, VALUE
from labmake.environment.code_vocabulary import OPENS_ALL, OPENS_ALL_PAIRS, OPENS_MODULE, sees
from labmake.model import canonical, digest_of

BUILTINS = frozenset(dir(builtins))

RUNS, WHOLE = -1, -2
"""Instead of a unit's number: the module is run; all of it is reached."""

READS_TEXT = "the text of modules may be read (inspect, traceback, a file by its name)"


@dataclass(slots=True)
class Reached:
    """What is reached: items with the item through which they were reached first (None for the function itself).

    `whole` has the files of which all counts, each with the reason. `sees`: see code_vocabulary.sees.
    """

    via: dict[Item, Item | None] = field(default_factory=dict)
    whole: dict[str, str] = field(default_factory=dict)
    sees: int = 0


class _Reach:
    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.found = Reached()
        self.pending: list[Item] = []
        self.dispatched: dict[Item, list[Item]] = {}
        self.words: set[str] = set()

    def add(self, item: Item, via: Item | None) -> None:
        if item not in self.found.via:
            self.found.via[item] = via
            self.pending.append(item)

    def run(self) -> None:
        while self.pending:
            item = self.pending.pop()
            if item[1] == RUNS:
                self._module(item[0])
            elif item[1] == WHOLE:
                self._whole(item[0])
            else:
                self._unit(item)

    # --- modules ----------------------------------------------------------------------------------------------------

    def _module(self, file: str) -> None:
        """A module is run: what it imports is run, and its effects count."""
        modules, item = self.modules, (file, RUNS)
        for _, paths, _ in modules.runs(file):
            for path in paths:
                self.add((path, RUNS), item)
        if modules.is_quiet(file):
            return
        if modules.is_unread(file):
            self.open_all(item, "it is nested too deeply to be read")
        for number in range(len(modules.table(file))):
            if modules.is_effect((file, number)):
                self.add((file, number), item)
            for end in modules.dispatches(file, number):
                self.dispatched.setdefault(end, []).append((file, number))
                if end in self.found.via:
                    self.add((file, number), end)

    def _runs(self, file: str, one: Imported, via: Item) -> None:
        for path in self.modules.imported(file, one.level, one.module, one.attr):
            self.add((path, RUNS), via)

    def _whole(self, file: str) -> None:
        self.add((file, RUNS), (file, WHOLE))
        for number, unit in enumerate(self.modules.table(file)):
            self.add((file, number), (file, WHOLE))
            for one in unit.imports:
                if not one.flags & DEFERRED and one.bound:
                    self._take(self.modules.through(file, one, ""), (file, WHOLE), "its module is used as a value")

    def open_module(self, place: Place, via: Item, why: str) -> None:
        """All of a module is reached, and all below a package."""
        for file in self.modules.below(place):
            self.found.whole.setdefault(file, why)
            self.add((file, WHOLE), via)

    def open_all(self, via: Item, why: str) -> None:
        """Everything in the closure is reached."""
        for file in sorted(self.modules.files):
            self.found.whole.setdefault(file, why)
            self.add((file, WHOLE), via)

    # --- units ------------------------------------------------------------------------------------------------------

    def _unit(self, item: Item) -> None:
        modules, file = self.modules, item[0]
        unit = modules.unit(item)
        self.add((file, RUNS), item)
        for chain in unit.uses:
            self._take(modules.meaning(file, chain), item, f"{unit.label} uses the module {chain} as a value")
        for one in unit.imports:
            self._import(file, unit, one, item)
        for other in self.dispatched.get(item, ()):
            self.add(other, item)
        self._words(item, unit)

    def _take(self, meaning: Meaning, via: Item, why: str) -> None:
        for passed in meaning.passed:
            self.add(passed, via)
        for place in meaning.modules:
            self.open_module(place, via, why)

    def _import(self, file: str, unit: Unit, one: Imported, via: Item) -> None:
        if one.flags & DEFERRED:
            self._runs(file, one, via)
            for rest in one.rests:
                why = f"{unit.label} uses the module {one.bound} as a value"
                self._take(self.modules.through(file, one, rest), via, why)
        if one.flags & VALUE:
            self._take(
                self.modules.through(file, one, ""), via, f"{unit.label} uses the module {one.module} as a value"
            )
        if one.flags & GUARDED:
            for path in self.modules.imported(file, one.level, one.module, one.attr):
                self.open_module(Place(path, ()), via, "it is imported in a try or with, so its failure may be caught")

    def _words(self, item: Item, unit: Unit) -> None:
        for word in unit.words:
            plain = word.strip("=@")
            if word in OPENS_MODULE:
                self.open_module(Place(item[0], ()), item, f"{unit.label} uses {plain}: {OPENS_MODULE[word]}")
            if plain in OPENS_ALL:
                self.open_all(item, f"{unit.label} uses {plain}: it {OPENS_ALL[plain]}")
        new = {word for word in unit.words if word not in self.words}
        self.words |= new
        plains = {word.strip("=@") for word in self.words}
        for pair, why in OPENS_ALL_PAIRS.items():
            if plains.issuperset(pair) and new:
                self.open_all(item, f"{unit.label} uses {' and '.join(pair)}: it {why}")
        if new and self.found.sees < 2:
            self.found.sees = sees(self.words)


def reach(modules: Modules, file: str, name: str, pickled: bool = False) -> Reached:
    """What the function `name` (a dotted name) of a file reaches; `pickled` if one of its inputs is a pickle file."""
    walk = _Reach(modules)
    walk.add((file, RUNS), None)
    meaning = modules.meaning(file, name)
    starred = any(dotted.endswith(".*") for dotted in meaning.outside)
    if meaning.is_open or starred or not meaning.passed:
        walk.open_all((file, RUNS), f"where {name} is defined cannot be seen")
    for item in meaning.passed:
        walk.add(item, None)
    for place in modules.shadows():
        walk.open_module(
            place, (file, RUNS), "it has the name of a module of the standard library, which others import"
        )
    if pickled:
        walk.open_all((file, RUNS), "an input is a pickle file: objects are found by the names in it")
    walk.run()
    if walk.found.sees == 2:
        for path in modules.files:
            walk.found.whole.setdefault(path, READS_TEXT)
    return walk.found


def rows(modules: Modules, reached: Reached, whole: Callable[[str, int], str]) -> Iterator[tuple[str, str]]:
    """Each file of which something counts, with its rows. `whole` gives the identity of all of a file, by `sees`."""
    order = _Order(modules, reached)
    for file in sorted(modules.files):
        if file in reached.whole or ((file, RUNS) in reached.via and not file.endswith(".py")):
            yield file, canonical(["*", whole(file, reached.sees)]) + "\n"
        elif (file, RUNS) in reached.via:
            text = "".join(canonical(row) + "\n" for row in order.rows(file))
            if text:
                yield file, text


class _Order:
    """In which order what is reached counts."""

    def __init__(self, modules: Modules, reached: Reached) -> None:
        self.modules = modules
        self.reached = reached
        self.running = [file for file, number in reached.via if number == RUNS]
        self.numbers: dict[str, list[int]] = {}
        for file, number in reached.via:
            if number >= 0:
                self.numbers.setdefault(file, []).append(number)
        self.weighty = self._weighty()
        self.early = self._early()

    def _weighty(self) -> set[str]:
        """Modules for which it matters when they are imported: they do something, or bind a name more than once, or
        import one that does."""
        importers: dict[str, set[str]] = {}
        pending = []
        for file in self.running:
            for _, paths, _ in self.modules.runs(file):
                for path in paths:
                    importers.setdefault(path, set()).add(file)
            if not file.endswith(".py") or self._is_weighty(file):
                pending.append(file)
        found: set[str] = set()
        while pending:
            file = pending.pop()
            if file not in found:
                found.add(file)
                pending += importers.get(file, ())
        return found

    def _is_weighty(self, file: str) -> bool:
        if self.modules.is_quiet(file):
            return False
        effects = any(self.modules.is_effect((file, number)) for number in range(len(self.modules.table(file))))
        return effects or bool(self._unsteady(file))

    def _unsteady(self, file: str) -> set[str]:
        """Names whose meaning changes while a module runs."""
        bound = {} if self.modules.is_quiet(file) else self.modules.table(file).bound
        return {name for name, numbers in bound.items() if len(numbers) > 1 or name in BUILTINS}

    def _early(self) -> set[Item]:
        """What the statements with effects may reach while modules run."""
        walk = _Reach(self.modules)
        for item in self.reached.via:
            if item[1] >= 0 and self.modules.is_effect(item):
                walk.add(item, None)
        walk.run()
        return set(walk.found.via)

    def rows(self, file: str) -> Iterable[list[object]]:
        """What of a module counts, if not all of it does."""
        modules = self.modules
        unsteady = self._unsteady(file)
        stars = bool(modules.table(file).stars) if not modules.is_quiet(file) else False
        weighty = {number: row for number, paths, row in modules.runs(file) if not self.weighty.isdisjoint(paths)}
        fixed: list[list[object]] = []
        free: list[list[object]] = []
        for number in sorted(weighty.keys() | self.numbers.get(file, ())):
            if number in weighty:
                label, digest, docs = weighty[number]
                fixed.append([label, digest, docs if self.reached.sees else "", -1])
                continue
            item = (file, number)
            unit = modules.unit(item)
            row = [unit.label, unit.digest, unit.docs if self.reached.sees else ""]
            if not unsteady.isdisjoint(unit.names) or modules.is_effect(item) or modules.dispatches(*item):
                fixed.append([*row, -1])
            else:
                now = stars or item in self.early or any(name.partition(".")[0] in unsteady for name in unit.now)
                free.append([*row, len(fixed) if now else -1])
        found = [*fixed, *sorted(free, key=canonical)]
        facts = modules.facts(file)
        if self.reached.sees and facts["doc"]:
            digest = digest_of(facts["doc"].encode("utf-8", "surrogatepass"))
            found.append(["the docstring of the file", digest, "", -1])
        # They change how all of the file is compiled, so they count as soon as anything in it does.
        return found + [[f"from __future__ import {name}", name, "", -1] for name in facts["future"] if found]


def path_to(modules: Modules, reached: Reached, item: Item) -> list[str]:
    """The labels of the units through which an item is reached, from the function itself."""
    found: list[str] = []
    seen: Mapping[Item, Item | None] = reached.via
    step: Item | None = item
    while step is not None:
        if step[1] >= 0:
            found.append(modules.unit(step).label)
        step = seen.get(step)
    return list(reversed(found))

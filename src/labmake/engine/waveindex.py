"""The index of a build for its waves: who asked for what, kept as flat arrays, so that a look-up reads no table.

    state/gear1/<crc of the question>.wave   marshal of (VERSION, question, targets, count, names, starts, edges,
                                             owners, always, rules, pickles, more)

`names` are all paths as one text, each between two NULs, the `count` nodes first; a path's number is its place in it.
`edges[starts[i]:starts[i + 1]]` are the nodes that asked for path i, `owners` pairs of a path and the node whose target
it is (where they differ), `always` the nodes that asked for a listing of generated files, `rules` the number of each
node's rule among `pickles`, where a plan is b"": it is in its file only. `more` are edges that waves added since, as
pairs of paths. Numbers are 4 bytes wide, in the machine's order: the file is read where it was written.

Constraints: after one change among 100 000 steps the index is read, asked for a few paths and left as it is. A
dictionary of lists took 20 ms at 20 000 steps, ten times as long as the look-ups; arrays take 1 ms.
"""

from __future__ import annotations

import marshal
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from labmake.engine import snapshot

FEW = 64
"""Look-ups by searching the text, after which a dictionary of all paths is worth its making."""

MANY = 1000
"""Edges added by waves above which all is looked at again, and the index written anew."""


class Index:
    """What is kept of a build for its waves: see the head of this file."""

    def __init__(
        self,
        targets: list[str],
        count: int,
        names: bytes,
        starts: bytes,
        edges: bytes,
        owners: bytes,
        always: bytes,
        rules: bytes,
        pickles: list[bytes],
        more: list[tuple[str, str]],
    ) -> None:
        self.targets, self.count, self.pickles, self.more = targets, count, pickles, more
        self._names = names
        self._starts, self._edges, self._owners = array("I", starts), array("I", edges), array("I", owners)
        self._always, self._rules = array("I", always), array("I", rules)
        self._paths: list[str] = []
        self._numbers: dict[str, int | None] = {}
        self._nodes: dict[int, int] = {}

    @property
    def parts(self) -> tuple[Any, ...]:
        """What is kept, in the order of `__init__`."""
        flat = (self._starts, self._edges, self._owners, self._always, self._rules)
        return self.targets, self.count, self._names, *(part.tobytes() for part in flat), self.pickles, self.more

    def number(self, path: str) -> int | None:
        """The number of a path; None if nothing knows it."""
        if path not in self._numbers and len(self._numbers) < FEW:
            place = self._names.find(b"\0" + os.fsencode(path) + b"\0")
            self._numbers[path] = None if place < 0 else self._names.count(b"\0", 0, place)
            if len(self._numbers) == FEW:
                self._numbers.update((known, number) for number, known in enumerate(self._all()))
        return self._numbers.get(path)

    def _all(self) -> list[str]:
        if not self._paths:
            self._paths = os.fsdecode(self._names[1:-1]).split("\0")
        return self._paths

    def owner(self, path: str) -> str:
        """The node whose target a path is; a path that is nobody's is its own."""
        if not self._owners:
            return path
        self._nodes = self._nodes or dict(zip(self._owners[::2], self._owners[1::2], strict=True))
        number = self.number(path)
        node = None if number is None else self._nodes.get(number)
        return path if node is None else self._all()[node]

    def owned(self, nodes: Set[str]) -> list[str]:
        """Those of the targets that the build was asked for which are targets of these nodes."""
        if not self._owners:
            return [target for target in self.targets if target in nodes]
        return [target for target in self.targets if self.owner(target) in nodes]

    def is_node(self, path: str) -> bool:
        number = self.number(path)
        return number is not None and number < self.count

    def dependents(self, path: str) -> Iterator[str]:
        """The nodes whose facts asked for a path or node."""
        number = self.number(path)
        if number is not None:
            names = self._all()
            yield from (names[node] for node in self._edges[self._starts[number] : self._starts[number + 1]])
        yield from (node for source, node in self.more if source == path)

    def always(self) -> Iterator[str]:
        """The nodes that asked for a listing of generated files."""
        names = self._all() if self._always else []
        return (names[number] for number in self._always)

    def rule(self, node: str) -> bytes:
        """The pickle of a node's rule, b"" for a plan."""
        number = self.number(node)
        assert number is not None and number < self.count
        return self.pickles[self._rules[number]]


def _of(pairs: Iterable[int]) -> bytes:
    return array("I", pairs).tobytes()


def index_of(
    targets: Sequence[str],
    dependents: Mapping[str, Sequence[str]],
    owners: Mapping[str, str],
    always: Iterable[str],
    rules: Mapping[str, int],
    pickles: list[bytes],
) -> Index:
    """The index of a build whose nodes are the keys of `rules`; see the head of this file."""
    others = (path for paths in (dependents, owners) for path in paths if path not in rules)
    numbers = {path: number for number, path in enumerate(dict.fromkeys([*rules, *others]))}
    names = b"\0" + os.fsencode("\0".join(numbers)) + b"\0"
    starts, edges = array("I", [0]), array("I")
    for path in numbers:
        edges.extend([numbers[node] for node in dependents.get(path, ())])
        starts.append(len(edges))
    owned = _of(number for path, node in owners.items() for number in (numbers[path], numbers[node]))
    listing = _of(numbers[node] for node in always)
    flat = (starts.tobytes(), edges.tobytes(), owned, listing, _of(rules.values()))
    return Index(list(targets), len(rules), names, *flat, pickles, [])


def _file(state: str, asked: str) -> str:
    return snapshot.file_of(state, asked) + ".wave"


def write(state: str, asked: str, index: Index) -> None:
    """Keep the index of a question."""
    snapshot.keep(_file(state, asked), marshal.dumps((snapshot.VERSION, asked, *index.parts)))


def read(state: str, asked: str) -> Index | None:
    """The index of a question as `write` kept it; None if there is none."""
    try:
        with open(_file(state, asked), "rb") as file:
            version, same, *parts = marshal.loads(file.read())
        return Index(*parts) if version == snapshot.VERSION and same == asked else None
    except (OSError, ValueError, EOFError, TypeError):
        return None


def forget(state: str, asked: str) -> None:
    """Forget the index and the snapshot of a question: the next build looks at everything."""
    for path in (_file(state, asked), snapshot.file_of(state, asked)):
        if os.path.lexists(path):
            os.unlink(path)

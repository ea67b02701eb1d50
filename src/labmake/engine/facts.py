"""Facts as a build reads and writes them: a few are looked up one by one, more are loaded all at once."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from labmake.store.state import State

FEW = 256
"""Facts that are looked up one by one (20 µs each); if there are more, all are loaded (6 µs each)."""


class Facts(MutableMapping[str, str]):
    """The texts of this worktree's facts by node. What is set or deleted here is not written: see Build."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, str | None] = {}
        self._whole = False

    def __getitem__(self, node: str) -> str:
        if node not in self._known and not self._whole:
            if len(self._known) >= FEW:
                self._load()
            else:
                self._known[node] = self._state.fact(node)
        text = self._known.get(node)
        if text is None:
            raise KeyError(node)
        return text

    def __setitem__(self, node: str, text: str) -> None:
        self._known[node] = text

    def __delitem__(self, node: str) -> None:
        self._known[node] = None

    def __iter__(self) -> Iterator[str]:
        self._load()
        return (node for node, text in list(self._known.items()) if text is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """Whether there is any, without loading all."""
        return any(self._known.values()) or bool(self._state.nodes("", 1))

    def _load(self) -> None:
        if not self._whole:
            self._known = {**self._state.facts(), **self._known}
            self._whole = True

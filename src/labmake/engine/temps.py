"""Temporary targets: who still reads them in a build, and which of them nobody will ask for any more.

A rule's `temp=True` has its targets removed, from the worktree and the store, as soon as all that read them are done.
Their digests stay, in facts and traces: what was made of them is up to date without them, and they are made again when
a reader has to run. A reader is known when it asks; so nothing is removed while a node has not asked for all that it
needs, since what it decides may be a reader too. Where a plan decides step by step that is at the end of the build.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from labmake.data.slices import split_slice
from labmake.engine.services import Services
from labmake.errors import LabmakeError
from labmake.layout import GENERATED
from labmake.model import Digest, Key


class Temps:
    """The temporary targets of one build, by node, and the keys whose tasks read them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._readers: dict[str, set[Key]] = {}
        self._reads: dict[Key, set[str]] = {}
        self._used: set[str] = set()
        self._candidates: set[str] = set()
        self.goals: set[str] = set()
        """Nodes that the user asked for: they stay."""
        self.living: set[Digest] = set()
        """The outputs of other nodes."""
        self._digests: dict[str, Mapping[str, Digest]] = {}
        self._held: set[str] = set()

    def asked(self, by: Key, keys: Sequence[Key]) -> None:
        """A task waits for these keys."""
        for key in keys:
            node = self._temporary(key)
            if node is not None:
                self._readers.setdefault(node, set()).add(by)
                self._reads.setdefault(by, set()).add(node)

    def _temporary(self, key: Key) -> str | None:
        if not key.startswith(f"{GENERATED}/") or split_slice(key) is not None:
            return None
        try:
            match = self._services.rulebook.find(key)
        except LabmakeError:
            return None
        return match.node if match.rule.options.get("temp") else None

    def runs(self, key: Key) -> None:
        """A step runs for this task: what it reads is of no use after it."""
        self._used |= self._reads.get(key, set())

    def ended(self, key: Key, well: bool) -> None:
        """A task is done. One that failed is tried again in the next build, and what it reads stays for that."""
        for node in self._reads.pop(key, ()):
            self._readers[node].discard(key)
            if not well:
                self.goals.add(node)
            self._candidates.add(node)

    def made(self, node: str, outputs: Mapping[str, Digest], fresh: bool) -> None:
        """A node has its outputs; they are not `fresh` if this build put them there."""
        if not self._services.rulebook.find(node).rule.options.get("temp"):
            self.living.update(outputs.values())
            return
        if self._digests.setdefault(node, outputs) != outputs:
            self._held.add(node)
        self._digests[node] = outputs
        if not fresh:
            self._used.add(node)
            self._candidates.add(node)

    def came_out_differently(self) -> bool:
        """Whether something was made again and is not what others have already read or relied on: they have to be
        looked at once more, and until then it stays. Asking ends that."""
        differs, self._held = bool(self._held), set()
        return differs

    def useless(self) -> list[str]:
        """The nodes whose targets nobody needs any more; each is told once."""
        if not self._candidates or self._services.undecided:
            return []
        found = [node for node in sorted(self._candidates) if not self._readers.get(node)]
        self._candidates -= set(found)
        return [node for node in found if node in self._used and node not in self.goals | self._held]


def damaged(services: Services, groups: Iterable[Iterable[tuple[Key, Any]]]) -> tuple[str, ...]:
    """The nodes among what a node asked for whose content the store no longer has in one piece: all of it is read.

    What a source or a slice has brought is not made again by a step, so it is not among them.
    """
    found: dict[str, None] = {}
    for key, digest in (pair for group in groups for pair in group):
        if key.startswith(f"{GENERATED}/") and split_slice(key) is None and digest != "failed":
            match = services.rulebook.find(key)
            if not match.rule.address and not services.blobs.is_sound(digest):
                found[match.node] = None
    return tuple(found)


def gone(services: Services, groups: Iterable[Iterable[tuple[Key, Any]]]) -> tuple[str, ...]:
    """The nodes of temporary targets among what a node asked for whose content is not in the store."""
    if not services.rulebook.temps:
        return ()
    found: dict[str, None] = {}
    for key, digest in (pair for group in groups for pair in group):
        if key.startswith(f"{GENERATED}/") and split_slice(key) is None and digest != "failed":
            match = services.rulebook.find(key)
            if match.rule.options.get("temp") and not services.blobs.has(digest):
                found[match.node] = None
    return tuple(found)

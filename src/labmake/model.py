"""The words of the glossary as frozen data: Digest, Recipe, Step, Rule, Action, Trace, Fact, Failure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, TypeAlias

from labmake.errors import Where
from labmake.frozen import frozen

FORMAT = 1
"""Version of the action text and of what is stored under it; raised when the same action would give other bytes."""

Digest: TypeAlias = str
"""`<64 hex digits of SHA-256>-<size in bytes>`; with a closing `/` the digest of a folder's manifest."""

Key: TypeAlias = str
"""What can be asked for: a path from the project's root, `path#key`, or a question such as `?glob pattern`."""

Json: TypeAlias = Any
"""None, bool, int, float, str, and lists and dicts (with str keys) of them."""


def digest_of(data: bytes) -> Digest:
    """The digest of a file that holds `data`."""
    return f"{hashlib.sha256(data).hexdigest()}-{len(data)}"


canonical: Callable[[Json], str] = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""The one JSON text of a value: keys sorted, no spaces, Unicode as it is."""


@frozen
class Each:
    """One input per combination of wildcard values; `over` maps a wildcard to a list, a file's path or a Find."""

    pattern: str
    over: Mapping[str, Any]
    failed: bool = False
    """True when the collector goes on without the ones that failed."""


@frozen
class Find:
    """The files that match a pattern with wildcards: in a folder target, else in the worktree."""

    pattern: str


@frozen
class Glob:
    """The worktree's files that match a shell pattern, never generated ones."""

    pattern: str


Spec: TypeAlias = "str | Each | Find | Glob | list[Any] | dict[str, Any]"
"""An input as a user writes it: a path or slice, a list or dict of them, each, find, glob."""


@frozen
class Recipe:
    """What runs. `kind`: function, python, r, julia, script, sh, document; `text` is a file's path or a command."""

    kind: str
    text: str
    function: str = ""
    interpreter: str = ""
    params: Mapping[str, Json] = field(default_factory=dict)


@frozen
class Step:
    """What a plan decides: recipe, inputs by name, parameters, options (the reserved words of section 3)."""

    recipe: Recipe
    inputs: Mapping[str, Spec]
    params: Mapping[str, Json]
    options: Mapping[str, Any]


@frozen
class Rule:
    """How targets whose path matches one of `outputs` (name → pattern from the project's root) are made.

    Exactly one of `step`, `plan` and `address` (a source) is set. `home` is the experiment whose script holds the rule,
    "" for rules.py. `digest` is the identity of what the rule says.
    """

    outputs: Mapping[str, str]
    home: str
    where: Where
    digest: str
    step: Step | None = None
    plan: Callable[..., Any] | None = None
    address: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@frozen
class Input:
    """A file or folder that a step sees: role (its name in the recipe), place in the step folder, digest.

    `origin` is the file to take it from when it is not in the store (a source file of the worktree).
    """

    role: str
    place: str
    digest: Digest
    origin: str = ""


@frozen
class Action:
    """A fully decided step; `digest` is the digest of `text`, which names all that may change the result."""

    digest: Digest
    text: str
    recipe: Recipe
    params: Mapping[str, Json]
    inputs: tuple[Input, ...]
    code: tuple[tuple[str, Digest], ...]
    """(place, digest) of every file of the code closure."""
    outputs: Mapping[str, str]
    """name → place in the step folder, a folder with a closing `/`."""
    roles: Mapping[str, Any]
    """name → place, list of places, or dict of places: the shape in which the recipe sees its inputs."""
    each: Mapping[str, tuple[str, ...]]
    """input → the wildcards by which it is keyed, for inputs that came from each or find."""
    asked: Key = ""
    """What was asked to find its code (see engine.nodes.code_key)."""


@frozen
class Trace:
    """What an action produced: output digests by name, seconds, peak memory in bytes, the log's digest."""

    action: Digest
    outputs: Mapping[str, Digest]
    seconds: float
    peak: int
    log: Digest
    when: float = 0.0
    loaded: Mapping[str, str] = field(default_factory=dict)
    """name → version of each distribution that the step imported and its action does not name: the trace counts only
    while these are installed in these versions."""
    locks: Mapping[str, Digest] = field(default_factory=dict)
    """The project's lock files as they were, for the record."""


Stat: TypeAlias = tuple[int, int, int]
"""(size, mtime_ns, inode) of a file as labmake last saw it."""


@frozen
class Fact:
    """What this worktree knows of a node: what its plan asked, in order, and what lies in its targets' places."""

    node: str
    rule: str
    groups: tuple[tuple[tuple[Key, str], ...], ...]
    action: Digest
    outputs: Mapping[str, tuple[Digest, Any]]
    """path → (digest, Stat of a file or {relative path: Stat} of a folder)."""
    snapshot: Digest = ""
    """Of the list of the step's code files as they were."""

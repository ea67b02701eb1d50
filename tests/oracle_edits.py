"""What happens to a project between two builds: each changes the worktree and the model's world alike."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import oracle_pipelines as pipelines
from oracle_model import EDITED
from oracle_paths import lies
from oracle_running import Mismatch, differences, put

if TYPE_CHECKING:
    from oracle_history import History

FIRST, SECOND = "2026-01-02-First", "2026-01-03-Second"
"""The two experiments of a project; the second begins as a copy of the first."""


def source(history: History, rng: random.Random) -> str:
    sources, what = pipelines.rewrite(rng, history.pipeline.sources)
    history.set(replace(history.pipeline, sources=sources))
    return what


def revert(history: History, rng: random.Random) -> str:
    """Back to what was, as git checkout does it."""
    number = rng.randrange(len(history.past))
    history.world.code, pipeline = history.past[number]
    history.set(pipeline)
    return f"to before edit {number}"


def rule(history: History, rng: random.Random) -> str:
    pipeline, what = pipelines.change_rule(rng, history.pipeline)
    history.set(pipeline)
    return what


def code(history: History, rng: random.Random) -> str:
    what = rng.choice(["tool", "tool_comment", "helper", "comment"])
    history.world.code = replace(history.world.code, **{what: f"{what}{rng.randrange(3)}"})
    return what


def rename(history: History, rng: random.Random) -> str:
    history.count += 1
    pipeline, what = pipelines.rename(rng, history.pipeline, f"n{history.count}")
    history.set(pipeline)
    return what


def reshape(history: History, rng: random.Random) -> str:
    pipeline, what = pipelines.reshape(rng, history.pipeline)
    history.set(pipeline)
    return what


def grow(history: History, rng: random.Random) -> str:
    draft = pipelines.resume(rng, history.pipeline, history.count)
    history.set(pipelines.grow(draft, 1))
    history.count = draft.count
    return f"{len(history.pipeline.rules)} rules"


def drop(history: History, rng: random.Random) -> str:
    pipeline, what = pipelines.drop(rng, history.pipeline)
    history.set(pipeline)
    return what


def missing(history: History, rng: random.Random) -> str:
    sources = dict(history.pipeline.sources)
    name = rng.choice(sorted(sources))
    if len(sources) > 1:
        del sources[name]
        history.set(replace(history.pipeline, sources=sources))
    return f"{name} is gone"


def format(history: History, rng: random.Random) -> str:
    history.world.comments[history.current] = f"# {rng.random()}\n"
    rules = list(history.pipeline.rules)
    rng.shuffle(rules)
    history.set(replace(history.pipeline, rules=tuple(rules)))
    return "a comment, and the rules in another order"


def touch(history: History, rng: random.Random) -> str:
    files = [path for path in history.root.rglob("*.*") if path.is_file() and ".git" not in path.parts]
    for path in rng.sample(sorted(files), min(3, len(files))):
        os.utime(path)
    return "files are touched"


def _lying(history: History, rng: random.Random) -> str:
    return rng.choice(sorted(history.world.trees[history.current]) or [""])


def delete(history: History, rng: random.Random) -> str:
    tree = history.world.trees[history.current]
    if rng.random() < 0.2:
        shutil.rmtree(history.root / "generated" / history.current, ignore_errors=True)
        tree.clear()
        return "all outputs"
    name = _lying(history, rng)
    if name:
        history.path(name).unlink()
        del tree[name]
    return name


def output(history: History, rng: random.Random) -> str:
    name = _lying(history, rng)
    if name:
        history.count += 1
        text = EDITED + f" {history.count}\n".encode()
        history.world.trees[history.current][name] = text
        put(history.path(name), text, rng)
    return name


def overwrite(history: History, rng: random.Random) -> str:
    """An output over another one: its content is known, so nothing is lost."""
    name, other = _lying(history, rng), _lying(history, rng)
    text = history.world.trees[history.current].get(other, EDITED)
    if not text.startswith(EDITED):
        history.world.trees[history.current][name] = text
        put(history.path(name), text, None)
    return f"{name} with {other}"


def foreign(history: History, rng: random.Random) -> str:
    """A file of the user's own in a folder target."""
    folders = sorted({p.rpartition("/")[0] for p in history.world.trees[history.current] if _in_folder(history, p)})
    if not folders:
        return "nothing"
    history.count += 1
    name = f"{rng.choice(folders)}/my{history.count}.txt"
    text = EDITED + f" {history.count}\n".encode()
    history.world.trees[history.current][name] = text
    put(history.path(name), text, None)
    return name


def _in_folder(history: History, path: str) -> bool:
    return any(path.startswith(rule.outputs[0]) for rule in history.pipeline.rules if rule.outputs[0].endswith("/"))


def clean(history: History, rng: random.Random) -> str:
    """`labmake clean`: what lies as it was placed goes."""
    code, printed = history.labmake(["clean", "-e", history.current])
    if code:
        raise Mismatch(f"clean ended with {code}\n{printed}")
    tree, there = history.world.trees[history.current], history.lying(history.current)
    doubt = set()
    for node, known in history.world.known[history.current].items():
        for path, data in known.outputs.items():
            if lies(tree, path, data):
                gone = {name for name in tree if name == path or (path[-1] == "/" and name.startswith(path))}
                tree = {name: text for name, text in tree.items() if name not in gone}
                doubt |= gone if node in history.world.fuzzy[history.current] else set()
    left = {name: text for name, text in there.items() if name not in doubt}
    if left != {name: text for name, text in tree.items() if name not in doubt}:
        raise Mismatch(f"clean left the wrong files\n{differences(left, tree)}\n{printed}")
    history.world.trees[history.current] = there
    return printed.strip()


def copy(history: History, rng: random.Random) -> str:
    """A copied experiment, or the other one from now on."""
    if SECOND not in history.world.pipelines:
        history.add(SECOND, history.pipeline)
    history.current = FIRST if history.current == SECOND else SECOND
    return f"now {history.current}"


def forget(history: History, rng: random.Random) -> str:
    """The state is disposable: without it nothing runs again."""
    shutil.rmtree(history.state / "state", ignore_errors=True)
    for world in [history.world] + ([history.other.world] if history.other else []):
        for name in world.known:
            world.known[name], world.fuzzy[name] = {}, set()
    return "the state folder is removed"


EDITS: dict[Callable[[History, random.Random], str], int] = {
    source: 30,
    revert: 8,
    rule: 10,
    code: 6,
    rename: 4,
    reshape: 3,
    grow: 3,
    drop: 4,
    missing: 1,
    format: 3,
    touch: 4,
    delete: 6,
    output: 5,
    overwrite: 3,
    foreign: 3,
    clean: 4,
    copy: 5,
    forget: 1,
}
"""Kinds of edits, with how often each is drawn."""

"""Jobs: what a worker is told of an action - files by place and digest, command, variables, limits, targets."""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from labmake.engine.batches import HOLE, batch_of
from labmake.engine.commands import as_word, check_names, fill, flat
from labmake.engine.outputs import stamp, stat_of
from labmake.engine.plan import amount, duration
from labmake.engine.rulebook import Match
from labmake.engine.services import Services
from labmake.errors import RuleError, Where
from labmake.executors.launch import TABLE
from labmake.executors.process import PYSTEP
from labmake.executors.resources import Request
from labmake.layout import Project
from labmake.model import Action, Digest, Input, Recipe
from labmake.store.digest import is_folder, parse_manifest, size_of

PASSED = frozenset(
    """PATH HOME USER LOGNAME SHELL LD_LIBRARY_PATH DYLD_LIBRARY_PATH DYLD_FALLBACK_LIBRARY_PATH VIRTUAL_ENV
    CONDA_PREFIX CONDA_DEFAULT_ENV R_HOME R_LIBS R_LIBS_USER R_LIBS_SITE RENV_PATHS_CACHE JULIA_DEPOT_PATH
    CUDA_HOME CUDA_PATH NVIDIA_VISIBLE_DEVICES XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME SSL_CERT_FILE
    SSL_CERT_DIR REQUESTS_CA_BUNDLE HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
    LOCALE_ARCHIVE FONTCONFIG_FILE FONTCONFIG_PATH NIX_PATH NIX_PROFILES NIX_SSL_CERT_FILE NIX_LD
    NIX_LD_LIBRARY_PATH NIX_PYTHONPATH OPENBLAS_CORETYPE OPENBLAS_L2_SIZE""".split()
)
"""The variables a step gets from the user's environment; all others it gets are fixed or follow from its action."""

LINKED = 1 << 20
"""Bytes above which an input is linked instead of copied, and its stat is checked again after the run."""


def job(
    services: Services,
    match: Match,
    action: Action,
    options: Mapping[str, Any],
    supersede: bool,
    names: Sequence[str] | None,
) -> dict[str, Any]:
    """The job of an action, as JSON (see executors.worker). `names` are the distributions in its environment, None if
    others that it imports do not count."""
    inputs = [told for one in action.inputs for told in _input(services, one)]
    places = {action.outputs[name]: services.absolute(path) for name, path in match.outputs.items()}
    lists = _lists(action, match.rule.where)
    command = _command(action, match.binding, lists)
    if options.get("wrap"):
        command = [*shlex.split(options["wrap"]), *command]
    own_seed = seed(next(iter(action.outputs.values())))
    secrets = {name: os.environ[name] for name in options.get("secrets", ()) if name in os.environ}
    return {
        "id": match.node,
        "action": action.digest,
        "text": action.text.encode(),
        "supersede": supersede,
        "code": [[place, digest, services.blobs.locate(digest), ""] for place, digest in action.code],
        "inputs": inputs,
        "stats": [
            [origin, digest, stat_of(origin)]
            for _, digest, _, origin in inputs
            if origin and digest[:1] not in ("", "@") and size_of(digest) > LINKED
        ],
        "outputs": dict(action.outputs),
        "targets": {place: [target, _there(target)] for place, target in places.items()},
        "command": command,
        "step": _step(action, match.binding, str(services.project.root)) if action.recipe.kind != "sh" else None,
        "lists": lists,
        "batch": _batch(action, options, match, command, own_seed),
        "static": None if names is None else list(names),
        "locks": services.environments.locks,
        "env": {"LABMAKE_SEED": own_seed, **secrets},
        "secrets": [value for value in secrets.values() if value],
        "failed": failed_folder(services, match.node),
        "checkpoint": checkpoint_folder(services, action.digest) if options.get("checkpoint") else "",
        "aside": f"{services.aside}/{stamp(services)}" if any(place.endswith("/") for place in places) else "",
    }


def _batch(
    action: Action, options: Mapping[str, Any], match: Match, command: list[str], own_seed: str
) -> dict[str, Any] | None:
    if "batch" not in options:
        return None
    try:
        return batch_of(action, options, match.binding, command, own_seed)
    except RuleError as error:
        error.where = match.rule.where
        raise


def _input(services: Services, one: Input) -> Iterator[list[Any]]:
    """[place, digest, location, origin] of a file: a source has an origin, anything else a location in the store.

    A folder is told file by file: links have the digest `@target`, empty folders none.
    """
    if not is_folder(one.digest):
        yield [one.place, one.digest, None if one.origin else services.blobs.locate(one.digest), one.origin]
        return
    base = one.place.rstrip("/")
    yield [base, "", None, ""]
    for entry in parse_manifest(services.blobs.read(one.digest)):
        place = f"{base}/{entry.path}"
        if entry.kind == "d":
            yield [place, "", None, ""]
        elif entry.kind == "l":
            yield [place, f"@{entry.value}", None, ""]
        elif one.origin:
            yield [place, entry.digest, None, os.path.join(one.origin, entry.path)]
        else:
            yield [place, entry.digest, services.blobs.locate(entry.value), ""]


def _there(target: str) -> tuple[int, int, int] | None:
    """The stat of what lies in a target's place now, as a worker compares it before it places."""
    found = stat_of(target)
    if found is not None:
        return found
    if not os.path.lexists(target):
        return None
    if os.path.isdir(target) and not os.path.islink(target):
        return (-1, 0, 0)
    other = os.lstat(target)
    return (other.st_size, other.st_mtime_ns, other.st_ino)


def failed_folder(services: Services, node: str) -> str:
    """Where the step folder and log of a failed step are kept."""
    return f"{services.project.state}/failed/{failure_name(node)}"


def checkpoint_folder(services: Services, action: Digest) -> str:
    """Where a step of this action keeps what its next attempt goes on from."""
    return f"{services.project.state}/checkpoints/{action}"


def failure_name(node: str) -> str:
    """The name of the folder in which a failed step of a node is kept."""
    return hashlib.sha256(node.encode()).hexdigest()[:16]


def request(options: Mapping[str, Any]) -> Request:
    """The resources that a step books."""
    return Request(
        int(options.get("cpus", 1)),
        amount(options["memory"]) if "memory" in options else 0,
        int(options.get("gpus", 0)),
        duration(options["time"]) if "time" in options else 0.0,
    )


def seed(output: str) -> str:
    """LABMAKE_SEED: it follows from the first output's short path alone, so a refactoring changes no random numbers."""
    return str(int.from_bytes(hashlib.sha256(output.encode()).digest()[:4], "big"))


def variables(project: Project) -> dict[str, str]:
    """The environment that all steps get: allowed variables of the user's, and fixed ones.

    Of the locale only LC_CTYPE says UTF-8: the other categories of C.UTF-8 are those of C (sorting is by code point in
    both), and each program that loads them opens a dozen files, 0.5 ms a step.
    """
    env = {name: value for name, value in os.environ.items() if name in PASSED}
    root = str(project.root) + os.sep
    extra = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and not p.startswith(root)]
    if extra:
        env["PYTHONPATH"] = os.pathsep.join(extra)
    env.update(
        SOURCE_DATE_EPOCH="946684800",
        TZ="UTC",
        LC_CTYPE="C.UTF-8",
        LANG="C",
        PYTHONHASHSEED="0",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONUNBUFFERED="1",
        MPLBACKEND="Agg",
        MPLCONFIGDIR=str(project.state / "cache" / "matplotlib"),
        TEXMFVAR=str(project.state / "cache" / "texmf"),
        LABMAKE_IN_STEP="1",
    )
    return env


def _command(action: Action, binding: Mapping[str, str], lists: Mapping[str, list[str]]) -> list[str]:
    recipe = action.recipe
    if recipe.kind == "sh":
        values = _values(action, binding)
        paths = {name: f"\0scratch/{name}.list" for name in lists}
        return ["bash", "-euo", "pipefail", "-c", fill(recipe.text, values, paths)]
    if recipe.kind == "document":
        return [sys.executable, "-P", "-m", recipe.text]
    if recipe.kind == "script":
        return [*shlex.split(recipe.interpreter), recipe.text, *_arguments(action, binding)]
    return list(PYSTEP)


def check_holes(recipe: Recipe, names: Sequence[str], batched: bool) -> None:
    """Raises RuleError if a shell command asks for a name that the rule does not have."""
    if recipe.kind == "sh":
        check_names(recipe.text, (*names, HOLE) if batched else names)


def _values(action: Action, binding: Mapping[str, str]) -> dict[str, str | list[str]]:
    """What the holes of a shell command stand for: paths that cannot be taken for options, and texts."""
    values: dict[str, str | list[str]] = {}
    for name, role in action.roles.items():
        paths = flat(role)
        values[name] = _safe(paths[0]) if isinstance(role, str) else [_safe(path) for path in paths]
    values.update({name: _safe(place) for name, place in action.outputs.items()})
    if "out" not in values:
        values["out"] = [_safe(place) for place in action.outputs.values()]
    values.update({name: as_word(value) for name, value in action.params.items()})
    values.update(binding)
    values["scratch"] = "\0scratch"
    values.setdefault(HOLE, f"\0scratch/{TABLE}")
    return values


def _safe(path: str) -> str:
    return f"./{path}" if path.startswith("-") else path


def _lists(action: Action, where: Where) -> dict[str, list[str]]:
    """The inputs of which a shell command wants `{name.list}`."""
    if action.recipe.kind != "sh":
        return {}
    lists = {name: flat(role) for name, role in action.roles.items() if f"{{{name}.list}}" in action.recipe.text}
    for name, paths in lists.items():
        for path in paths:
            if "\n" in path:
                raise RuleError(
                    "a list has one path a line, and a path of this one has a newline",
                    [("list", f"{{{name}.list}}"), ("path", repr(path))],
                    [f"rename the file, or use {{{name}}}"],
                    where,
                )
    return lists


def _arguments(action: Action, binding: Mapping[str, str]) -> list[str]:
    words = [f"{name}={place}" for name, role in action.roles.items() for place in flat(role)]
    words += [f"{name}={as_word(value)}" for name, value in action.params.items()]
    words += [f"{name}={value}" for name, value in binding.items()]
    return words + [f"{name}={place}" for name, place in action.outputs.items()]


def _step(action: Action, binding: Mapping[str, str], root: str) -> dict[str, Any]:
    """The content of the file that LABMAKE_STEP names."""
    return {
        "project": root,
        "recipe": {"kind": action.recipe.kind, "file": action.recipe.text, "function": action.recipe.function},
        "inputs": action.roles,
        "each": {name: list(names) for name, names in action.each.items()},
        "parameters": dict(action.params),
        "wildcards": dict(binding),
        "outputs": dict(action.outputs),
    }

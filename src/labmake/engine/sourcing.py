"""Sources: data from outside, copied to their target and pinned by hash in the experiment's hashes.txt.

A source whose data are not what hashes.txt records stops the build before it computes: sources that targets may need
are brought first (see reach).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from labmake.data import hashes
from labmake.engine import outputs as places
from labmake.engine.nodes import Made, WouldRun
from labmake.engine.plan import Answer, Failed, Result
from labmake.engine.rulebook import Match
from labmake.engine.services import Options, Services
from labmake.errors import DataChanged, LabmakeError, RuleError
from labmake.layout import script_folder, short
from labmake.model import Digest, Fact, Key
from labmake.store.digest import hex_of, parse_manifest, plain

HASHES = "hashes.txt"


def visit_source(
    services: Services, options: Options, match: Match, fact: Fact | None
) -> Generator[Sequence[Key], Sequence[Result], Any]:
    """Bring a source's target up to date: compare the data with the pin, copy them, pin them if they are not yet."""
    address = match.rule.address
    try:
        path = locate(address, services.project.root, match.experiment)
        (result,) = yield [path]
        if isinstance(result, Failed):
            raise _missing(match, address, path, result.error)
    except LabmakeError as error:
        error.where = error.where or match.rule.where
        raise
    assert isinstance(result, Answer)
    digest = result.digest
    pins = _check(services, match, digest, result)
    target = match.node
    if fact is not None and fact.outputs.get(target, ("",))[0] == digest and not places.touched(services, fact):
        _pin(services, options, match, pins)
        return Made({target: digest}, "fresh", fact)
    places.protect(services, target, digest, fact, options.discard_edits and not options.dry)
    if options.dry:
        return WouldRun("run", f"fetched from {address}")
    _store(services, digest, result)
    placed = places.restore(services, {target: digest}, fact, options.discard_edits)
    assert placed is not None
    _pin(services, options, match, pins)
    services.reporter.restored(target)
    groups = (((path, digest),),)
    return Made({target: digest}, "restored", Fact(target, match.rule.digest, groups, f"source {digest}", placed))


def locate(address: str, root: Path, experiment: str) -> str:
    """The absolute path behind a source's address, a folder with a closing slash. Raises RuleError."""
    if address.startswith("package:"):
        name, _, rest = address[8:].partition("/")
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        if found is None or not found.submodule_search_locations:
            raise RuleError(f"the Python package {name} is not installed", [("address", address)], [f"install {name}"])
        return os.path.join(next(iter(found.submodule_search_locations)), rest)
    path = os.path.expanduser(address.removeprefix("file://"))
    base = root / script_folder(experiment) if path.startswith("./") else root
    whole = os.path.normpath(base / path)
    return whole + ("/" if address.endswith("/") else "")


def _missing(match: Match, address: str, path: str, cause: LabmakeError) -> LabmakeError:
    name = short(match.node, match.experiment)
    facts: list[tuple[str, object]] = [("address", address), ("looked at", path)]
    if not os.path.exists(path.rstrip("/")):
        return RuleError(f"the source of {name} is not there", facts, ["correct the address, or bring the data there"])
    if os.path.isdir(path):
        advice = f'write source("{name}/", "{address}/"): a folder has a closing / on both sides'
        return RuleError(f"the source of {name} is a folder", facts, [advice])
    return RuleError(f"the source of {name} cannot be read", [*facts, *cause.facts], ["see that you may read it"])


def _store(services: Services, digest: Digest, result: Answer) -> None:
    """Copy the data into the store, file by file."""
    if result.data is None:
        services.blobs.put_copy(result.origin, plain(digest))
        return
    for entry in parse_manifest(result.data):
        if entry.kind in "fx":
            services.blobs.put_copy(os.path.join(result.origin, entry.path), entry.value)


def _check(services: Services, match: Match, digest: Digest, result: Answer) -> dict[str, str]:
    """name → hex of every file of a source, after comparing them with the pins. Raises DataChanged."""
    target = match.node
    if result.data is None:
        found = {target: hex_of(digest)}
    else:
        found = {target + e.path: hex_of(e.value) for e in parse_manifest(result.data) if e.kind in "fx"}
    recorded = pinned(services, match.experiment)
    known = {n: h for n, h in recorded.items() if n == target or (target.endswith("/") and n.startswith(target))}
    differing = sorted(n for n in {*known, *found} if known.get(n) != found.get(n)) if known else []
    if differing:
        first = differing[0]
        raise DataChanged(
            f"the data of {short(target, match.experiment)} are not what {HASHES} records",
            [
                ("source", match.rule.address),
                ("file", first),
                ("recorded", known.get(first, "no such file")),
                ("found", found.get(first, "no such file")),
                ("differing", f"{len(differing)} of {len(found)} files"),
            ],
            [
                "bring the recorded data back,",
                f"or accept these: delete the lines of {short(target, match.experiment)} in "
                f"{hashes_file(match.experiment)} and build again",
            ],
            match.rule.where,
        )
    return found


def hashes_file(experiment: str) -> str:
    """The project path of an experiment's hashes.txt."""
    folder = script_folder(experiment)
    return f"{folder}/{HASHES}" if folder else HASHES


def pinned(services: Services, experiment: str) -> dict[str, str]:
    """The pins of an experiment: project path → hex. A copied experiment's pins are those of its twin."""
    file = hashes_file(experiment)
    try:
        services.looked.add(services.absolute(file))
        text = (services.project.root / file).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    read = hashes.parse(text, file)
    own: dict[str, str] = {}
    for name, value in read.items():
        parts = name.split("/", 2)
        if experiment and len(parts) == 3 and parts[0] == "generated" and parts[1] != experiment:
            name = f"generated/{experiment}/{parts[2]}"
            if name in read:
                continue
        own[name] = value
    return own


def _pin(services: Services, options: Options, match: Match, pins: dict[str, str]) -> None:
    if options.dry:
        return
    file = services.project.root / hashes_file(match.experiment)
    recorded = _lines(services, match.experiment)
    missing = {name: value for name, value in pins.items() if recorded.get(name) != value}
    if missing:
        twins = [n for n in recorded if n.split("/", 2)[2:] and n not in pins and _twin(n, match.experiment) in pins]
        hashes.update(file, missing, remove=twins)


def _lines(services: Services, experiment: str) -> dict[str, str]:
    file = hashes_file(experiment)
    try:
        return hashes.parse((services.project.root / file).read_text(encoding="utf-8", errors="replace"), file)
    except FileNotFoundError:
        return {}


def _twin(name: str, experiment: str) -> str:
    parts = name.split("/", 2)
    return f"generated/{experiment}/{parts[2]}" if experiment and len(parts) == 3 else name

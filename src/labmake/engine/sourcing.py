"""Sources: data from outside, copied to their target and pinned by hash in the experiment's hashes.txt.

A source whose data are not what hashes.txt records stops the build before it computes: sources that targets may need
are brought first (see reach). Files and folders are looked at each time; what lies in the web is in engine.fetching.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from labmake.engine import outputs as places
from labmake.engine import pins
from labmake.engine.fetching import is_web, visit_fetched
from labmake.engine.nodes import Made, Run, WouldRun
from labmake.engine.plan import Answer, Failed, Result
from labmake.engine.rulebook import Match
from labmake.engine.services import Options, Services
from labmake.errors import LabmakeError, RuleError
from labmake.layout import script_folder, short
from labmake.model import Digest, Fact, Key
from labmake.store.digest import blob_of, hex_of, parse_manifest, plain


def visit_source(
    services: Services, options: Options, match: Match, fact: Fact | None
) -> Generator[Sequence[Key] | Run, Any, Any]:
    """Bring a source's target up to date: compare the data with the pin, copy them, pin them if they are not yet."""
    if is_web(match.rule.address):
        return (yield from visit_fetched(services, options, match, fact))
    return (yield from _visit_local(services, options, match, fact))


def _visit_local(
    services: Services, options: Options, match: Match, fact: Fact | None
) -> Generator[Sequence[Key], Sequence[Result], Any]:
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
    target = match.node
    found = _hashes(target, digest, result)
    pins.check(services, match, found)
    if fact is not None and fact.outputs.get(target, ("",))[0] == digest and not places.touched(services, fact):
        pins.pin(services, options, match, found)
        return Made({target: digest}, "fresh", fact)
    places.protect(services, target, digest, fact, options.discard_edits and not options.dry)
    if options.dry:
        return WouldRun("run", f"fetched from {address}")
    _store(services, digest, result)
    placed = places.restore(services, {target: digest}, fact, options.discard_edits)
    assert placed is not None
    pins.pin(services, options, match, found)
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
        files = [(result.origin, plain(digest))]
    else:
        entries = [entry for entry in parse_manifest(result.data) if entry.kind in "fx"]
        files = [(os.path.join(result.origin, entry.path), entry.value) for entry in entries]
        if not services.blobs.verify(blob_of(digest)):
            services.keep(result.data)
    for path, blob in files:
        services.blobs.put_copy(path, blob)
        if not services.blobs.verify(blob):  # it was there, and is damaged: now it is forgotten
            services.blobs.put_copy(path, blob)


def _hashes(target: str, digest: Digest, result: Answer) -> dict[str, str]:
    """project path → hex of every file of a source."""
    if result.data is None:
        return {target: hex_of(digest)}
    return {target + entry.path: hex_of(entry.value) for entry in parse_manifest(result.data) if entry.kind in "fx"}

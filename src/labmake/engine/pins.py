"""Pins: what an experiment's hashes.txt records of its sources, compared with what is found, and written."""

from __future__ import annotations

from collections.abc import Mapping

from labmake.data import hashes
from labmake.engine.rulebook import Match
from labmake.engine.services import Options, Services
from labmake.errors import DataChanged
from labmake.layout import script_folder, short

HASHES = "hashes.txt"


def check(services: Services, match: Match, found: Mapping[str, str]) -> None:
    """Compare a source's files (project path → hex) with their pins. Raises DataChanged if one differs."""
    target = match.node
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


def pin(services: Services, options: Options, match: Match, found: Mapping[str, str]) -> None:
    """Write the hashes of a source's files into hashes.txt, unless they are there; not in a dry build."""
    if options.dry:
        return
    file = services.project.root / hashes_file(match.experiment)
    recorded = _lines(services, match.experiment)
    missing = {name: value for name, value in found.items() if recorded.get(name) != value}
    if missing:
        twins = [n for n in recorded if n.split("/", 2)[2:] and n not in found and _twin(n, match.experiment) in found]
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

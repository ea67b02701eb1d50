"""What differs between two results: the place in each file, the lines or bytes, and the causes that these show."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile, zip_longest
from pathlib import Path

from labmake.engine.causes import UMASK, Surroundings, told_by
from labmake.engine.compare import files_of
from labmake.engine.parts import LARGE, Part, Parts, format_note, take_apart
from labmake.frozen import frozen

SHOWN = 3
"""Differing lines that are shown of a file, each with its counterpart."""

MOST = 8
"""Differences that are told of one file."""

WIDE = 160
"""Characters that are shown of a line."""

LINES = 20_000
"""Lines up to which two texts are aligned; longer ones are compared line by line."""

DEEP = 4
"""How deep archives in archives are taken apart."""


@frozen
class Difference:
    """`place` names the file in the result and the part in the file, `what` says how they differ, `lines` show it
    ("- " the first, "+ " the second), `causes` are those that it shows; `whole` if these account for all of it."""

    place: str
    what: str
    lines: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    whole: bool = False


def evidence(one: Path, other: Path, unequal: Sequence[str], around: Surroundings) -> list[Difference]:
    """The differences of two results in the files of which `unequal` names the paths in it."""
    first, second = files_of(one), files_of(other)
    found: list[Difference] = []
    for name in unequal:
        if name not in first or name not in second:
            missing = "second" if name in first else "first"
            found.append(Difference(name, f"is not there in the {missing} result"))
        else:
            found += _of_files(name, first[name], second[name], around)
    return found


def _of_files(name: str, one: Path, other: Path, around: Surroundings) -> list[Difference]:
    if one.is_symlink() or other.is_symlink() or one.is_dir() or other.is_dir():
        kinds = [f"link to {os.readlink(path)}" if path.is_symlink() else _kind(path) for path in (one, other)]
        if kinds[0] == kinds[1]:
            return []
        return [Difference(name, "is something else", (f"- {kinds[0]}", f"+ {kinds[1]}"))]
    modes = [bool(path.stat().st_mode & 0o100) for path in (one, other)]
    found: list[Difference] = []
    if modes[0] != modes[1]:
        words = ["executable" if mode else "not executable" for mode in modes]
        found.append(Difference(name, "has another mode", (f"- {words[0]}", f"+ {words[1]}"), (UMASK,), True))
    if max(one.stat().st_size, other.stat().st_size) > LARGE:
        return [*found, *_of_large(name, one, other)]
    return [*found, *list(_of_data(name, one.read_bytes(), other.read_bytes(), around, DEEP))[:MOST]]


def _kind(path: Path) -> str:
    return "folder" if path.is_dir() else "file"


def _of_data(place: str, one: bytes, other: bytes, around: Surroundings, deep: int) -> Iterator[Difference]:
    """The differences of two files' content; taken apart by their format, if it is a known one."""
    if one == other:
        return
    mine, its = (take_apart(one), take_apart(other)) if deep else (None, None)
    if mine is not None and its is not None:
        told = list(_of_parts(place, mine, its, around, deep))
        yield from told or [_of_bytes(place, one, other, "; all its parts are the same: packed in another way")]
        return
    texts = _text(one), _text(other)
    if texts[0] is not None and texts[1] is not None:
        yield _of_text(place, texts[0], texts[1], around)
    else:
        yield _of_bytes(place, one, other, format_note(one) and f"; {format_note(one)}")


def _of_parts(place: str, mine: Parts, its: Parts, around: Surroundings, deep: int) -> Iterator[Difference]:
    nothing = Part(b"")
    for name in dict.fromkeys([*mine, *its]):
        one, other = mine.get(name, nothing), its.get(name, nothing)
        where = f"{place}: {name}" if place else name
        if one.data == other.data:
            continue
        if name not in mine or name not in its:
            yield Difference(where, f"is not there in the {'second' if name in mine else 'first'} result")
        elif one.cause:
            shown = [_cut(part.data.decode(errors="replace")) for part in (one, other)]
            yield Difference(where, "differs", (f"- {shown[0]}", f"+ {shown[1]}"), (one.cause,), True)
        else:
            yield from _of_data(where, one.data, other.data, around, deep - 1)


def _text(data: bytes) -> str | None:
    if b"\0" in data[:4096]:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _of_text(place: str, one: str, other: str, around: Surroundings) -> Difference:
    first, second = one.split("\n"), other.split("\n")
    pairs = list(_unlike(first, second))
    gone, come = ([line for _, side in pairs for line in side[number]] for number in (0, 1))
    told = told_by(gone, come, around)
    lines: list[str] = []
    for _, (mine, its) in pairs[:SHOWN]:
        at = _start_of_difference(mine, its)
        lines += [f"- {_cut(line, at)}" for line in mine[:SHOWN]] + [f"+ {_cut(line, at)}" for line in its[:SHOWN]]
    count = max(len(gone), len(come))
    at, total = pairs[0][0], len(first) - (first[-1] == "")
    what = f"line {at} of {total} differs" if count == 1 else f"{count} lines differ, from line {at} on"
    return Difference(place, what, tuple(lines[: 2 * SHOWN]), told.causes, told.whole)


def _unlike(one: Sequence[str], other: Sequence[str]) -> Iterator[tuple[int, tuple[Sequence[str], Sequence[str]]]]:
    """(line number in the first, what stands there in each) where two texts differ."""
    if len(one) == len(other) or max(len(one), len(other)) > LINES:
        for number, (mine, its) in enumerate(zip_longest(one, other), 1):
            if mine != its:
                yield number, ([] if mine is None else [mine], [] if its is None else [its])
        return
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=True)
    for word, start, end, its_start, its_end in matcher.get_opcodes():
        if word != "equal":
            yield start + 1, (one[start:end], other[its_start:its_end])


def _start_of_difference(mine: Sequence[str], its: Sequence[str]) -> int:
    """The column at which two lines begin to differ."""
    same = (a == b for a, b in zip(mine[0], its[0], strict=False)) if mine and its else iter(())
    return sum(1 for _ in takewhile(bool, same))


def _cut(line: str, at: int = 0) -> str:
    """A line as it is shown: the part around column `at`, if it is long."""
    start = max(0, at - WIDE // 4) if len(line) > WIDE else 0
    end = start + WIDE
    return ("… " if start else "") + line[start:end] + (" …" if len(line) > end else "")


def _of_bytes(place: str, one: bytes, other: bytes, note: str = "") -> Difference:
    at = _first(one, other)
    shown = [data[at : at + 16].hex(" ") or "(end)" for data in (one, other)]
    sizes = f"{len(one)} and {len(other)} bytes, " if len(one) != len(other) else ""
    return Difference(place, f"{sizes}differs from byte {at} on{note}", (f"- {shown[0]}", f"+ {shown[1]}"))


def _first(one: bytes, other: bytes) -> int:
    """The offset of the first byte that differs, from 0: whole blocks first, for Python is slow byte by byte."""
    block = 1 << 12
    at = 0
    while at < min(len(one), len(other)) and one[at : at + block] == other[at : at + block]:
        at += block
    while at < min(len(one), len(other)) and one[at] == other[at]:
        at += 1
    return min(at, len(one), len(other))


def _of_large(name: str, one: Path, other: Path) -> list[Difference]:
    at = 0
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            mine, its = first.read(1 << 20), second.read(1 << 20)
            if mine != its:
                found = _of_bytes(name, mine, its)
                where = at + _first(mine, its)
                return [Difference(name, f"differs from byte {where} on", found.lines)]
            if not mine:
                return []
            at += len(mine)

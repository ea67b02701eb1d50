"""Slices: one element of a JSON, CSV or TSV file as its own small file, so that a new element spoils no other."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from labmake.errors import Facts, NoSuchKey, RuleError, Where
from labmake.formats import csv_rows, read_json
from labmake.model import canonical

_TABLES = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (".json", *_TABLES)
_LONGEST = 255
"""Bytes in the name of a file, on every file system in use."""


def split_slice(path: str) -> tuple[str, str] | None:
    """`data/folds.json#3` → ("data/folds.json", "3"); None if no `#` follows the suffix .json, .csv or .tsv."""
    start = 0
    while (at := path.find("#", start)) >= 0:
        if path[:at].endswith(_SUFFIXES):
            return path[:at], path[at + 1 :]
        start = at + 1
    return None


def slice_place(path: str, key: str) -> str:
    """Where the slice lies in the step folder: `data/folds.json`, `3` → `data/folds#3.json`."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}#{key}{suffix}"


def keys(name: str, data: bytes) -> list[str]:
    """The keys of the file's elements, in its order: what `each` yields and slices accept. Errors as `elements`."""
    return list(elements(name, data))


def elements(name: str, data: bytes) -> dict[str, bytes]:
    """key → the bytes of the small file that holds only this element, in the order of the file `name` with `data`.

    Keys are those of an object, the values of a list of scalars, the indices of a list of objects or lists, the first
    column of a table. An element is canonical JSON and a newline, or the header and one row.
    Raises RuleError for another suffix, a malformed file, and a key that is there twice or cannot name a file.
    """
    suffix = os.path.splitext(name)[1]
    if suffix not in _SUFFIXES:
        raise RuleError(
            f"{name} cannot be sliced", [("file", name), ("can be", ", ".join(_SUFFIXES))], ["write it in one of these"]
        )
    result: dict[str, bytes] = {}
    for line, key, text in _table(name, data) if suffix in _TABLES else _json(name, data):
        where = Where(name, line)
        _check_key(name, key, where)
        if key in result:
            raise RuleError(f"a key is twice in {name}", [("key", key), ("file", where)], ["make the keys unique"])
        try:
            result[key] = text.encode()
        except UnicodeEncodeError as error:
            raise _bad_key(name, key, "its element is not Unicode text", where) from error
    return result


def _check_key(name: str, key: str, where: Where) -> None:
    """A key becomes part of a target's path and of a file's name, so it must be able to be one."""
    if not key:
        raise _bad_key(name, key, "it is empty", where)
    if key in (".", ".."):
        raise _bad_key(name, key, "it means a folder", where)
    if split_slice(key) is not None:
        raise _bad_key(name, key, "a path with it would be read as a slice", where)
    for character, word in (("/", "a slash"), ("\n", "a newline"), ("\r", "a newline"), ("\0", "a NUL")):
        if character in key:
            raise _bad_key(name, key, f"it has {word}", where)
    try:
        size = len(os.path.basename(slice_place(name, key)).encode())
    except UnicodeEncodeError as error:
        raise _bad_key(name, key, "it is not Unicode text", where) from error
    if size > _LONGEST:
        raise _bad_key(name, key[:60] + "…", f"it is longer than a file's name may be ({size} bytes)", where)


def _bad_key(name: str, key: str, reason: str, where: Where) -> RuleError:
    return RuleError(
        f"a key of {name} cannot be part of a path",
        [("key", repr(key)), ("because", reason), ("file", where)],
        ["give the elements other keys"],
    )


def _json(name: str, data: bytes) -> Iterator[tuple[int, str, str]]:
    read_json(data, name)
    value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=lambda pairs: _unique(name, pairs))
    if not isinstance(value, dict | list):
        raise _not_sliceable(name, f"one {type(value).__name__}")
    for key, element in value.items() if isinstance(value, dict) else _listed(name, value):
        yield 0, key, canonical(element) + "\n"


def _unique(name: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise RuleError(f"a key is twice in {name}", [("key", twice), ("in", name)], ["make the keys unique"])
    return value


def _listed(name: str, value: list[Any]) -> Iterator[tuple[str, Any]]:
    nested = [isinstance(element, dict | list) for element in value]
    if any(nested) and not all(nested):
        raise _not_sliceable(name, "a list of scalars and of objects or lists")
    for number, element in enumerate(value):
        yield str(number) if nested[number] else element if isinstance(element, str) else canonical(element), element


def _not_sliceable(name: str, holds: str) -> RuleError:
    return RuleError(
        f"{name} has no elements that a key could name",
        [("holds", holds), ("wanted", "an object, a list of scalars, a list of objects or lists")],
        ["write one of these"],
    )


def _table(name: str, data: bytes) -> Iterator[tuple[int, str, str]]:
    separator = _TABLES[os.path.splitext(name)[1]]
    rows = csv_rows(data, name)
    header = next(rows, None)
    if header is None:
        raise RuleError(f"{name} is not a table", [("error", "the header is missing")], ["write a header"])
    top = _row(header[1], separator)
    for line, row in rows:
        yield line, row[0], top + _row(row, separator)


def _row(cells: list[str], separator: str) -> str:
    """One line of CSV. The writer quotes only the characters of its line end, so it is told of both kinds."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerow(cells)
    return text.getvalue().removesuffix("\r\n") + "\n"


def no_such_key(path: str, key: str, keys: Sequence[str]) -> NoSuchKey:
    """The error for a slice of `path` whose `key` is not among `keys`: how many there are, and the nearest."""
    facts: Facts = [("asked", f"{path}#{key}"), ("keys", _count(keys))]
    near = _nearest(key, keys)
    if near:
        facts = [*facts, ("nearest", ", ".join(near))]
    todo = f"ask for {path}#{near[0]}, or add {key} to {path}" if near else f"{path} is empty: add {key} to it"
    return NoSuchKey(f"{path} has no element {key}", facts, [todo])


def _count(keys: Sequence[str]) -> str:
    return "none" if not keys else keys[0] if len(keys) == 1 else f"{len(keys)}, from {keys[0]} to {keys[-1]}"


def _nearest(key: str, keys: Sequence[str]) -> list[str]:
    """At most three keys: the neighbours of a number, else those that are written alike, else the first ones."""
    if key.isdecimal():
        numbers = sorted((abs(int(other) - int(key)), int(other), other) for other in keys if other.isdecimal())
        if numbers:
            return [other for _, _, other in numbers[:3]]
    import difflib

    return difflib.get_close_matches(key, keys, 3, 0.5) or list(keys[:3])

"""A file taken apart by its format: headers, dates, members, content, so that what differs can be named.

A table of formats; what none of them fits, or is damaged, stays whole.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from labmake.engine.causes import ORDER, TIME, UMASK
from labmake.frozen import frozen

LARGE = 64 << 20
"""Bytes above which a file is not taken apart: its parts would all be in memory."""


@frozen
class Part:
    """A piece of a file. `cause` says what it means if this piece differs, "" if its content has to tell."""

    data: bytes
    cause: str = ""


Parts = dict[str, Part]


def take_apart(data: bytes) -> Parts | None:
    """The parts of a file by name, in order; None if it is in none of the known formats."""
    if len(data) > LARGE:
        return None
    for is_one, split in _FORMATS:
        if is_one(data):
            try:
                return split(data)
            except Exception:  # a damaged or unusual file; whatever the library says of it, it stays one part
                return None
    return None


def format_note(data: bytes) -> str:
    """What is known of a format that is not taken apart; "" if nothing is."""
    return next((note for magic, note in _NOTES if data.startswith(magic)), "")


_NOTES = (
    (b"\x89HDF\r\n\x1a\n", "HDF5 records when its objects were made: write with track_times=False"),
    (b"SQLite format 3\0", "SQLite counts changes in its header: write the file in one transaction, in a fixed order"),
)


def _text(value: object) -> bytes:
    return str(value).encode(errors="backslashreplace")


def _lines(values: list[Any]) -> Part:
    return Part("\n".join(map(repr, values)).encode())


def _gzip(data: bytes) -> Parts:
    import gzip

    flags, (when,) = data[3], struct.unpack("<I", data[4:8])
    parts = {"time in the header": Part(_text(when), TIME)}
    if flags & 8:
        start = 10 + (2 + int.from_bytes(data[10:12], "little") if flags & 4 else 0)
        parts["file name in the header"] = Part(data[start : data.index(b"\0", start)])
    return {**parts, "content": Part(gzip.decompress(data))}


def _bz2(data: bytes) -> Parts:
    import bz2

    return {"content": Part(bz2.decompress(data))}


def _xz(data: bytes) -> Parts:
    import lzma

    return {"content": Part(lzma.decompress(data))}


def _zip(data: bytes) -> Parts:
    """Also npz, xlsx, docx, jar and wheels."""
    parts: Parts = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        parts["order of the members"] = Part("\n".join(one.filename for one in members).encode(), ORDER)
        for one in sorted(members, key=lambda one: one.filename):
            parts[f"date of {one.filename}"] = Part(_text(" ".join(f"{n:02}" for n in one.date_time)), TIME)
            parts[f"mode of {one.filename}"] = Part(_text(oct(one.external_attr >> 16)), UMASK)
            parts[one.filename] = Part(archive.read(one))
    return parts


def _tar(data: bytes) -> Parts:
    parts: Parts = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        parts["order of the members"] = Part("\n".join(one.name for one in members).encode(), ORDER)
        for one in sorted(members, key=lambda one: one.name):
            file = archive.extractfile(one) if one.isfile() else None
            parts[f"date of {one.name}"] = Part(_text(one.mtime), TIME)
            parts[f"mode of {one.name}"] = Part(_text(oct(one.mode)), UMASK)
            parts[f"owner of {one.name}"] = Part(_text(f"{one.uname}:{one.gname}"))
            parts[one.name] = Part(file.read() if file is not None else _text(one.linkname))
    return parts


def _png(data: bytes) -> Parts:
    """Chunks: a date or a text that differs is another thing than a pixel that does."""
    parts: Parts = {}
    pixels = b""
    at = 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8].decode("latin-1"), data[at + 8 : at + 8 + length]
        at += length + 12
        if kind == "IDAT":
            pixels += body
        elif kind in ("tEXt", "zTXt", "iTXt"):
            word, _, text = body.partition(b"\0")
            parts[f"text {word.decode('latin-1')}"] = Part(text, TIME if b"Time" in word or b"Date" in word else "")
        elif kind == "tIME":
            parts["time of the last change"] = Part(_text(list(body)), TIME)
        else:
            parts[f"chunk {kind}"] = Part(body)
    return {**parts, "pixels": Part(zlib.decompress(pixels))}


def _pdf(data: bytes) -> Parts:
    """The dates, the identifier, each stream inflated, and the rest without them."""
    import re

    parts: Parts = {}
    for key in (b"CreationDate", b"ModDate"):
        found = re.findall(rb"/" + key + rb"\s*\(([^)]*)\)", data)
        parts[f"/{key.decode()}"] = Part(b"\n".join(found), TIME)
    parts["/ID"] = Part(b"\n".join(re.findall(rb"/ID\s*\[[^\]]*\]", data)), TIME)
    rest = re.sub(rb"/(?:CreationDate|ModDate)\s*\([^)]*\)|/ID\s*\[[^\]]*\]", b"", data)
    for number, one in enumerate(re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", rest, re.DOTALL), 1):
        try:
            parts[f"stream {number}"] = Part(zlib.decompress(one[1]))
        except zlib.error:
            parts[f"stream {number}"] = Part(one[1])
    return {**parts, "objects": Part(re.sub(rb"stream\r?\n.*?endstream", b"stream", rest, flags=re.DOTALL))}


def _pickle(data: bytes) -> Parts:
    """What it would do when it is loaded, an operation a line; nothing is loaded."""
    import pickletools

    lines = (f"{code.name} {argument!r}" for code, argument, _ in pickletools.genops(data))
    return {"operations": Part("\n".join(line for line in lines if not line.startswith("FRAME")).encode())}


def _npy(data: bytes) -> Parts:
    import numpy

    values: Any = numpy.load(io.BytesIO(data), allow_pickle=False)
    about = f"{values.dtype} {values.shape} {'F' if numpy.isfortran(values) else 'C'}"
    return {"type and shape": Part(_text(about)), "values": _lines(values.ravel().tolist())}


def _parquet(data: bytes) -> Parts:
    import pyarrow.parquet

    written: Any = pyarrow.parquet.ParquetFile(io.BytesIO(data))
    parts = {"created by": Part(_text(written.metadata.created_by))}
    return {**parts, **_table(written.read())}


def _arrow(data: bytes) -> Parts:
    import pyarrow.feather

    return _table(pyarrow.feather.read_table(io.BytesIO(data)))


def _table(table: Any) -> Parts:
    parts = {"schema": Part(_text(table.schema.remove_metadata()))}
    for key, value in sorted((table.schema.metadata or {}).items()):
        parts[f"metadata {key.decode(errors='replace')}"] = Part(value)
    for name in table.schema.names:
        parts[f"column {name}"] = _lines(table.column(name).to_pylist())
    return parts


def _starts(magic: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(magic)


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Parts]], ...] = (
    (_starts(b"\x1f\x8b"), _gzip),
    (_starts(b"BZh"), _bz2),
    (_starts(b"\xfd7zXZ\0"), _xz),
    (_starts(b"PK\x03\x04"), _zip),
    (lambda data: data[257:262] == b"ustar", _tar),
    (_starts(b"\x89PNG\r\n\x1a\n"), _png),
    (_starts(b"%PDF"), _pdf),
    (lambda data: data[:1] == b"\x80" and data[1:2] in (b"\2", b"\3", b"\4", b"\5") and data[-1:] == b".", _pickle),
    (_starts(b"\x93NUMPY"), _npy),
    (_starts(b"PAR1"), _parquet),
    (_starts(b"ARROW1"), _arrow),
)
"""(whether a file is of this format, how it is taken apart): a format is added here."""

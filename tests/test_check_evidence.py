"""What differs between two files, by their formats, and the causes that a text shows."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from labmake.engine.causes import (
    ADDRESS,
    FOLDER,
    ORDER,
    RANDOM,
    ROUNDING,
    TIME,
    UMASK,
    Surroundings,
    told_by,
)
from labmake.engine.evidence import Difference, evidence
from labmake.executors.strace import seen

NOW = 1_790_000_000.0
AROUND = Surroundings("/p/.git/labmake/steps", NOW - 5, NOW + 5)


def differences(tmp_path: Path, one: bytes, other: bytes) -> list[Difference]:
    for name, data in (("one", one), ("other", other)):
        (tmp_path / name).write_bytes(data)
    return evidence(tmp_path / "one", tmp_path / "other", [""], AROUND)


def places(found: list[Difference]) -> dict[str, tuple[str, ...]]:
    return {one.place: one.causes for one in found}


# What a text shows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "causes"),
    [
        ("made 2026-01-02T03:04:05Z", "made 2026-01-02T03:04:07Z", [TIME]),
        ("Mon Jan  5 10:00:00 UTC 2026", "Mon Jan  5 10:00:02 UTC 2026", [TIME]),
        ("05 Jan 2026", "06 Jan 2026", [TIME]),
        ("20260105_101010.log", "20260105_101012.log", [TIME]),
        (f"{NOW:.0f}", f"{NOW + 2:.0f}", [TIME]),
        (f"{NOW + 0.25:.3f}", f"{NOW + 2.5:.3f}", [TIME]),
        (f"{NOW * 1000:.0f}", f"{(NOW + 2) * 1000:.0f}", [TIME]),
        ("1234567890", "1234567899", [RANDOM]),  # a number like a time, but of another year
        ("took 0.123 s", "took 0.456 s", [TIME]),
        ("/p/.git/labmake/steps/h-1/a/0/box1/x", "/p/.git/labmake/steps/h-1/b/0/box1/x", [FOLDER]),
        ("see /tmp/tmpab12cd34", "see /tmp/tmpzz12cd34", [FOLDER]),
        ("/tmp/RtmpAbCdEf/x", "/tmp/RtmpAbCdEg/x", [FOLDER]),
        ("<f at 0x7f0011223344>", "<f at 0x7f0011223355>", [ADDRESS]),
        ("8c7b1e9e-0000-4000-8000-0123456789ab", "9c7b1e9e-0000-4000-8000-0123456789ab", [RANDOM]),
        ("-rw-r--r-- x", "-rw------- x", [UMASK]),
        ("a b c", "c a b", [ORDER]),
        ("0.3000000000000001", "0.3000000000000002", [ROUNDING]),
        ("0.1234", "0.9876", [RANDOM]),
        ("9f86d081884c7d659a2feaa0", "60303ae22b998861bce3b28f", [RANDOM]),
        ("yes", "no", []),
        ("2026-01-02 /p/.git/labmake/steps/a", "2026-01-03 /p/.git/labmake/steps/b", [FOLDER, TIME]),
    ],
)
def test_a_text_shows_its_cause(one: str, other: str, causes: list[str]) -> None:
    assert list(told_by([one], [other], AROUND).causes) == causes


def test_lines_in_another_order_are_told_as_that(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, b"a\nb\nc\n", b"b\na\nc\n")
    assert found.causes == (ORDER,) and found.what == "2 lines differ, from line 1 on"
    assert found.lines == ("- a", "+ b", "- b", "+ a")


def test_an_inserted_line_is_told_alone_and_a_long_line_from_where_it_differs(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, b"a\nb\nc\n", b"a\nx\nb\nc\n")
    assert found.what == "line 2 of 3 differs" and found.lines == ("+ x",)
    long = b"x" * 5000
    (found,) = differences(tmp_path, long + b"1", long + b"2")
    assert all(len(line) < 200 for line in found.lines) and found.lines[0].endswith("1")


# What a file is made of ----------------------------------------------------------------------------------------------


def zipped(
    date: tuple[int, ...], names: tuple[str, ...] = ("a", "b"), content: bytes = b"x", mode: int = 0o644
) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            info = zipfile.ZipInfo(name, date)  # type: ignore[arg-type]
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return out.getvalue()


def tarred(mtime: int = 0, mode: int = 0o644, owner: str = "me") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("a")
        info.mtime, info.mode, info.uname, info.size = mtime, mode, owner, 1
        archive.addfile(info, io.BytesIO(b"x"))
    return out.getvalue()


def png(*chunks: tuple[bytes, bytes], pixel: bytes = b"\0\1\2\3", level: int = 9) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    rest = b"".join(chunk(kind, body) for kind, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + rest + chunk(b"IDAT", zlib.compress(pixel, level)) + chunk(b"IEND", b"")


def pdf(date: str, identifier: str, stream: bytes = b"text") -> bytes:
    body = zlib.compress(stream)
    return (
        f"%PDF-1.4\n1 0 obj << /CreationDate (D:{date}) /Length {len(body)} >>\nstream\n".encode()
        + body
        + f"\nendstream\nendobj\ntrailer << /ID [<{identifier}> <{identifier}>] >>\n".encode()
    )


DAY = (2026, 1, 2, 3, 4, 6)

FORMATS = {
    "gzip": (gzip.compress(b"x", mtime=1), gzip.compress(b"x", mtime=3), {"time in the header": (TIME,)}),
    "gzip content": (gzip.compress(b"a\n", mtime=1), gzip.compress(b"b\n", mtime=1), {"content": ()}),
    "bz2": (bz2.compress(b"0.1\n"), bz2.compress(b"0.7\n"), {"content": (RANDOM,)}),
    "xz": (lzma.compress(b"0.1\n"), lzma.compress(b"0.7\n"), {"content": (RANDOM,)}),
    "zip date": (zipped(DAY), zipped((*DAY[:5], 8)), {"date of a": (TIME,), "date of b": (TIME,)}),
    "zip order": (zipped(DAY), zipped(DAY, ("b", "a")), {"order of the members": (ORDER,)}),
    "zip mode": (zipped(DAY, ("a",)), zipped(DAY, ("a",), mode=0o600), {"mode of a": (UMASK,)}),
    "zip content": (zipped(DAY, ("a",)), zipped(DAY, ("a",), b"y"), {"a": ()}),
    "zip in zip": (
        zipped(DAY, ("a",), gzip.compress(b"x", mtime=1)),
        zipped(DAY, ("a",), gzip.compress(b"x", mtime=3)),
        {"a: time in the header": (TIME,)},
    ),
    "tar": (tarred(1, 0o644), tarred(3, 0o600), {"date of a": (TIME,), "mode of a": (UMASK,)}),
    "tar owner": (tarred(), tarred(owner="you"), {"owner of a": ()}),
    "png text": (
        png((b"tEXt", b"Creation Time\0today")),
        png((b"tEXt", b"Creation Time\0now")),
        {"text Creation Time": (TIME,)},
    ),
    "png time": (
        png((b"tIME", b"\7\1\1\1\1\1\1")),
        png((b"tIME", b"\7\1\1\1\1\1\2")),
        {"time of the last change": (TIME,)},
    ),
    "png pixels": (png(), png(pixel=b"\0\1\2\4"), {"pixels": ()}),
    "pdf": (
        pdf("20260102030405Z", "00ff"),
        pdf("20260102030407Z", "00fe"),
        {"/CreationDate": (TIME,), "/ID": (TIME,)},
    ),
    "pdf stream": (pdf("1", "0", b"0.125"), pdf("1", "0", b"0.625"), {"stream 1": (RANDOM,)}),
    "pickle": (pickle.dumps({"a": "x"}), pickle.dumps({"a": "y"}), {"operations": ()}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_is_taken_apart_by_its_format(name: str, tmp_path: Path) -> None:
    one, other, expected = FORMATS[name]
    assert places(differences(tmp_path, one, other)) == expected


def test_a_pickled_set_in_another_order_is_told_as_that(tmp_path: Path) -> None:
    one, other = (pickle.dumps(list(words)) for words in ("abc", "cab"))
    assert places(differences(tmp_path, one, other)) == {"operations": (ORDER,)}


def test_the_same_pixels_packed_in_another_way_are_told_as_that(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, png(pixel=b"\0" * 4, level=0), png(pixel=b"\0" * 4, level=9))
    assert "packed in another way" in found.what


def test_arrays_and_tables_are_told_by_values_and_metadata(tmp_path: Path) -> None:
    import numpy
    import pandas
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet

    def array(*values: float, dtype: str = "float64") -> bytes:
        out = io.BytesIO()
        numpy.save(out, numpy.array(values, dtype))
        return out.getvalue()

    assert places(differences(tmp_path, array(1, 2), array(1, 2 + 1e-9))) == {"values": (ROUNDING,)}
    assert places(differences(tmp_path, array(1, 2), array(1, 2, dtype="float32"))) == {"type and shape": ()}

    def table(kind: str, value: float, note: str) -> bytes:
        out = io.BytesIO()
        made = pyarrow.Table.from_pandas(pandas.DataFrame({"a": [1.0, value]}))
        made = made.replace_schema_metadata({"made": note})
        writer = pyarrow.parquet.write_table if kind == "parquet" else pyarrow.feather.write_feather
        writer(made, out)
        return out.getvalue()

    for kind in ("parquet", "feather"):
        one = table(kind, 2.0, "2026-01-02")
        assert places(differences(tmp_path, one, table(kind, 2.0, "2026-01-03"))) == {"metadata made": (TIME,)}
        assert places(differences(tmp_path, one, table(kind, 0.5, "2026-01-02"))) == {"column a": (RANDOM,)}


def test_what_is_in_no_known_format_is_told_by_its_first_byte(tmp_path: Path) -> None:
    (found,) = differences(tmp_path, b"\0" * 10_000 + b"\1", b"\0" * 10_000 + b"\2\3")
    assert found.what == "10001 and 10002 bytes, differs from byte 10000 on" and found.lines == ("- 01", "+ 02 03")
    (found,) = differences(tmp_path, b"\x89HDF\r\n\x1a\n\0\1", b"\x89HDF\r\n\x1a\n\0\2")
    assert "track_times=False" in found.what
    damaged = gzip.compress(b"x" * 100, mtime=1)[:-9]
    (found,) = differences(tmp_path, damaged, damaged + b"\0")
    assert found.what.startswith(f"{len(damaged)} and {len(damaged) + 1} bytes")


def test_a_large_file_is_compared_without_being_read_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labmake.engine.evidence.LARGE", 1000)
    (found,) = differences(tmp_path, b"\0" * (3 << 20) + b"a", b"\0" * (3 << 20) + b"b")
    assert found.what == f"differs from byte {3 << 20} on"


# What strace tells ---------------------------------------------------------------------------------------------------

LOG = r"""
7 openat(AT_FDCWD</box>, "in.txt", O_RDONLY|O_CLOEXEC) = 3</box/in.txt>
7 openat(AT_FDCWD</box>, "none", O_RDONLY) = -1 ENOENT (No such file or directory)
7 openat(AT_FDCWD</box>, "/data/\303\274 \"q\".csv", O_RDONLY) = 3</data/\303\274 "q".csv>
8 openat(AT_FDCWD</box>, "slow", O_RDONLY <unfinished ...>
7 openat(AT_FDCWD</box>, "/out/made", O_RDWR|O_CREAT|O_TRUNC, 0666) = 4</out/made>
8 <... openat resumed>) = 5</box/slow>
7 openat(AT_FDCWD</box>, "/out/made", O_RDONLY) = 4</out/made>
7 getdents64(3</data>, 0x5591 /* 4 entries */, 32768) = 96
7 execve("./tool", ["./tool"], 0x7ffe /* 3 vars */) = 0
7 renameat2(AT_FDCWD</box/sub>, "x", AT_FDCWD</box/sub>, "../y", RENAME_NOREPLACE) = 0
7 rename("a", "/out/b") = 0
7 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = -1 EINPROGRESS (Op)
7 connect(3<TCP:[1]>, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
7 connect(3<TCP:[1]>, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", &sin6_addr), sin6_scope_id=0}, 28) = 0
7 connect(3<UNIX-STREAM:[1]>, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0
7 +++ exited with 0 +++
half a line openat(
"""  # noqa: E501


def test_a_log_of_strace_is_read_back() -> None:
    found = seen(LOG.splitlines())
    assert found.read == {"/box/in.txt", '/data/ü "q".csv', "/box/slow", "/box/tool"}
    assert found.listed == {"/data"}
    assert found.wrote == {"/out/made", "/box/y", "/out/b"}
    assert found.connected == {"192.0.2.1:443", "[2001:db8::1]:80"}

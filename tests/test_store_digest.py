"""Digests of files and folders, and the manifest's text."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.errors import RuleError, StoreError
from labmake.model import digest_of
from labmake.store import digest as module
from labmake.store.digest import (
    Entry,
    FileChanged,
    blob_of,
    digest_file,
    hex_of,
    is_executable,
    is_folder,
    output_digest,
    parse_manifest,
    plain,
    render_manifest,
    scan_folder,
    size_of,
)

DIGEST = digest_of(b"data")


def test_a_files_digest_is_what_sha256sum_prints_and_its_size(tmp_path: Path) -> None:
    for size in (0, 1, 1 << 20, (2 << 20) + 17):
        data = os.urandom(size)
        (tmp_path / "f").write_bytes(data)
        assert digest_file(str(tmp_path / "f")) == f"{hashlib.sha256(data).hexdigest()}-{size}"


def test_the_parts_of_a_digest_can_be_told_apart() -> None:
    for mark in ("", "*", "/"):
        digest = DIGEST + mark
        assert (hex_of(digest), size_of(digest), blob_of(digest)) == (DIGEST[:64], 4, DIGEST)
        assert (is_executable(digest), is_folder(digest)) == (mark == "*", mark == "/")
    assert plain(DIGEST + "*") == DIGEST
    assert plain(DIGEST + "/") == DIGEST + "/"


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 100)
    read = os.readv

    def read_and_append(*arguments: object) -> int:
        with path.open("ab") as file:
            file.write(b"more")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "readv", read_and_append)
    monkeypatch.setattr(module, "BUFFER", 50)
    with pytest.raises(FileChanged):
        digest_file(str(path))


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "f", tmp_path / "g"
    path.write_bytes(b"one")
    other.write_bytes(b"two")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    read = os.readv

    def read_and_replace(*arguments: object) -> int:
        if other.exists():
            other.rename(path)
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "readv", read_and_replace)
    with pytest.raises(FileChanged):
        digest_file(str(path))


def test_what_is_no_file_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RuleError) as caught:
        digest_file(str(tmp_path / "pipe"))
    assert "a named pipe" in caught.value.what and caught.value.facts and caught.value.todo
    with pytest.raises(RuleError):
        scan_folder(str(tmp_path))
    with pytest.raises(IsADirectoryError):
        digest_file(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        digest_file(str(tmp_path / "absent"))


def test_a_socket_in_a_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s")
        with pytest.raises(RuleError, match="a socket"):
            scan_folder(str(tmp_path))


def test_the_output_digest_tells_an_executable_file_and_a_folder(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("data")
    assert output_digest(str(tool)) == DIGEST
    tool.chmod(0o755)
    assert output_digest(str(tool)) == DIGEST + "*"
    assert output_digest(str(tmp_path)) == digest_of(f'["x","tool","{DIGEST}"]\n'.encode()) + "/"


def test_a_folder_is_listed_with_executables_links_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sub/f").write_text("data")
    (tmp_path / "tool").write_text("data")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "sub/deep/link").symlink_to("../f")
    (tmp_path / "folder").symlink_to("sub")
    assert scan_folder(str(tmp_path)) == [
        Entry("d", "empty"),
        Entry("l", "folder", "sub"),
        Entry("l", "sub/deep/link", "../f"),
        Entry("f", "sub/f", DIGEST),
        Entry("x", "tool", DIGEST),
    ]


@pytest.mark.parametrize("target", ["/etc/passwd", "../beside", "sub/../../beside", "../{home}/f", "up/../../beside"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, target: str) -> None:
    home = tmp_path / "home"
    (home / "sub/deep").mkdir(parents=True)
    (home / "f").write_text("inside")
    (tmp_path / "beside").write_text("outside")
    (home / "up").symlink_to("sub/deep/../..")  # inside by itself, but "up/.." is not
    (home / "link").symlink_to(target.replace("{home}", "home"))
    with pytest.raises(RuleError) as caught:
        scan_folder(str(home))
    assert caught.value.facts[0] == ("link", str(home / "link")) and caught.value.todo


def test_a_link_to_nothing_inside_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("absent")
    assert scan_folder(str(tmp_path)) == [Entry("l", "link", "absent")]


def test_a_name_that_is_not_utf8_is_refused_with_its_bytes() -> None:
    with pytest.raises(RuleError) as caught:
        render_manifest([Entry("f", os.fsdecode(b"caf\xe9"), DIGEST)])
    assert ("bytes", b"caf\xe9") in caught.value.facts


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
odd = st.sampled_from(["-rf", "new\nline", '"quoted"', "ünïcode", "\u2028", "a b", "…", "\\", "*", ".hidden", "\x7f"])
parts = (names | odd).filter(lambda name: name not in (".", ".."))
digests = st.binary(max_size=8).map(digest_of)


@st.composite
def manifests(draw: st.DrawFn) -> list[Entry]:
    """Entries of which none lies below another."""
    entries: list[Entry] = []
    for path in draw(st.lists(st.lists(parts, min_size=1, max_size=3).map("/".join), unique=True, max_size=8)):
        if all(not f"{path}/".startswith(f"{e.path}/") and not f"{e.path}/".startswith(f"{path}/") for e in entries):
            kind = draw(st.sampled_from("dflx"))
            value = {"d": st.just(""), "l": parts}.get(kind, digests)
            entries.append(Entry(kind, path, draw(value)))
    return entries


@given(manifests())
def test_a_manifest_survives_being_written_and_read(entries: list[Entry]) -> None:
    data = render_manifest(entries)
    assert parse_manifest(data) == sorted(entries, key=lambda entry: entry.path)
    assert render_manifest(reversed(entries)) == data
    assert data.count(b"\n") == len(entries)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\n",
        '["f","a"]\n',
        '["f","a",1]\n',
        '[["f"],"a","b"]\n',
        '["q","a","b"]\n',
        f'["f","a","{DIGEST}"]',
        f'["f", "a", "{DIGEST}"]\n',
        f'["f","b","{DIGEST}"]\n["f","a","{DIGEST}"]\n',
        f'["f","a","{DIGEST}"]\n["f","a","{DIGEST}"]\n',
        f'["f","../a","{DIGEST}"]\n',
        f'["f","/a","{DIGEST}"]\n',
        f'["f","a//b","{DIGEST}"]\n',
        f'["l","a","b"]\n["f","a/x","{DIGEST}"]\n',
        '["l","a","../b"]\n',
        '["l","a","/b"]\n',
        '["l","a",""]\n',
        '["f","a","123-4"]\n',
        '["f","\\ud800","x"]\n',
    ],
)
def test_a_manifest_that_labmake_would_not_write_is_refused(text: str) -> None:
    with pytest.raises(StoreError) as caught:
        parse_manifest(text.encode())
    assert caught.value.todo

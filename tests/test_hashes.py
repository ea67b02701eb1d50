"""hashes.txt: what labmake writes coreutils can check, and what sha256sum writes labmake can read."""

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labmake.data.hashes import parse, render, update
from labmake.errors import RuleError

A, B = "a" * 64, "b" * 64

STRANGE = [
    "a b.csv",
    'it\'s "it".csv',
    "two\nlines",
    "back\\slash",
    "back\\nslash",
    "cr\r",
    "größe.csv",
    "-dash",
    "x\x0bv\u2028w",
]


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sha256sum", "--check", "--strict", "hashes.txt"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_sha256sum_checks_what_labmake_writes_whatever_the_names(tmp_path):
    hashes = {}
    for name in STRANGE:
        (tmp_path / name).write_text(name)
        hashes[name] = hashlib.sha256(name.encode()).hexdigest()
    assert update(tmp_path / "hashes.txt", hashes)
    result = check(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("OK") == len(STRANGE)


def test_sha256sum_finds_a_changed_file(tmp_path):
    (tmp_path / "x").write_text("changed")
    update(tmp_path / "hashes.txt", {"x": A})
    assert check(tmp_path).returncode == 1


def test_labmake_reads_what_sha256sum_writes(tmp_path):
    for name in STRANGE:
        (tmp_path / name).write_text(name)
    output = subprocess.run(["sha256sum", "--", *STRANGE], cwd=tmp_path, capture_output=True, check=True).stdout
    read = parse(output.decode(), "hashes.txt")
    assert read == {name: hashlib.sha256(name.encode()).hexdigest() for name in STRANGE}


@given(st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), st.just(A)))
def test_what_is_rendered_is_parsed_again(hashes):
    assert parse(render(hashes), "hashes.txt") == hashes


def test_lines_are_sorted_by_name_and_addresses_are_ordinary_names():
    text = render({"s3://bucket/x": B, "data/b": A, "data/a": A})
    assert text == f"{A}  data/a\n{A}  data/b\n{B}  s3://bucket/x\n"


def test_comments_blank_lines_binary_marks_and_windows_line_ends_are_understood():
    text = f"# note\n\n{A} *x\n{B.upper()}  y z\r\n"
    assert parse(text, "hashes.txt") == {"x": A, "y z": B}


@pytest.mark.parametrize("line", ["hello", f"{A[1:]}  x", f"{A} x", f"{A}  ", f"SHA256 (x) = {A}", rf"\{A}  a\tb"])
def test_a_malformed_line_is_an_error_with_file_and_line(line):
    with pytest.raises(RuleError, match=r"hashes\.txt:2"):
        parse(f"# comment\n{line}\n", "hashes.txt")


def test_two_hashes_for_one_name_are_an_error_and_the_same_twice_is_not():
    assert parse(f"{A}  x\n{A}  x\n", "h") == {"x": A}
    with pytest.raises(RuleError, match="two hashes"):
        parse(f"{A}  x\n{B}  x\n", "h")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_name_that_no_line_can_hold_is_an_error(name):
    with pytest.raises(RuleError):
        render({name: A})


def test_update_adds_replaces_removes_and_keeps_comments_on_top(tmp_path):
    path = tmp_path / "hashes.txt"
    path.write_text(f"# checked by Ann\n{A}  b\n# second\n{A}  c\n")
    assert update(path, {"a": B, "b": B}, {"c", "absent"})
    assert path.read_text() == f"# checked by Ann\n# second\n{B}  a\n{B}  b\n"


def test_update_leaves_an_unchanged_file_alone(tmp_path):
    path = tmp_path / "hashes.txt"
    update(path, {"a": A})
    before = path.stat()
    assert not update(path, {"a": A}, ["b"])
    assert path.stat().st_ino == before.st_ino and path.stat().st_mtime_ns == before.st_mtime_ns


def test_update_makes_no_file_for_no_hashes(tmp_path):
    assert not update(tmp_path / "hashes.txt", {})
    assert os.listdir(tmp_path) == []


def test_update_keeps_permissions_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "hashes.txt"
    path.write_text("")
    path.chmod(0o640)
    update(path, {"a": A})
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["hashes.txt"]


def test_update_follows_a_link_instead_of_replacing_it(tmp_path):
    (tmp_path / "real.txt").write_text("")
    (tmp_path / "hashes.txt").symlink_to("real.txt")
    update(tmp_path / "hashes.txt", {"a": A})
    assert (tmp_path / "hashes.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == f"{A}  a\n"


def test_update_does_not_touch_a_malformed_file(tmp_path):
    path = tmp_path / "hashes.txt"
    path.write_text("<<<<<<< ours\n")
    with pytest.raises(RuleError, match=r"hashes\.txt:1"):
        update(path, {"a": A})
    assert path.read_text() == "<<<<<<< ours\n"

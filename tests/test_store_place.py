"""Placing results at their targets and inputs in step folders."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from labmake.errors import Edited, StoreError
from labmake.model import Stat, digest_of
from labmake.seams import GRANULARITY
from labmake.store import place
from labmake.store.blobs import SMALL, Blobs, MemoryIndex
from labmake.store.copying import create
from labmake.store.digest import FileChanged, render_manifest, scan_folder, triple
from labmake.store.place import (
    place_file,
    place_folder,
    place_input,
    place_moved,
    remove_empty_parents,
    remove_file,
)

SIZES = {"small": b"small", "large": b"large" * SMALL, "linked": b"linked" * place.LINKED}
sizes = pytest.mark.parametrize("data", SIZES.values(), ids=SIZES)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "store", MemoryIndex())


@pytest.fixture
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """No root, and a file system that cannot reflink: hard links are the choice for large files."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(place, "reflink", lambda source, descriptor: False)


def put_folder(blobs: Blobs, folder: Path) -> str:
    entries = scan_folder(str(folder))
    for entry in entries:
        if entry.kind in "fx":
            blobs.put_copy(str(folder / entry.path), entry.value)
    return blobs.put_bytes(render_manifest(entries)) + "/"


def tree(folder: Path) -> dict[str, object]:
    return {entry.path: (entry.kind, entry.value) for entry in scan_folder(str(folder))}


def stat_of(path: Path) -> Stat:
    return triple(path.lstat())


def is_settled(placed: Stat, folder: Path) -> bool:
    """Whether the mtime lies a whole tick before that of a file written now, as an edit in this moment would be."""
    (folder / "probe").write_text("")
    stamp = (folder / "probe").stat().st_mtime_ns
    (folder / "probe").unlink()
    return placed[1] <= stamp - GRANULARITY


# Files


@sizes
def test_a_blob_is_placed_with_its_stat_and_an_ordinary_mode(tmp_path: Path, blobs: Blobs, data: bytes) -> None:
    target = tmp_path / "generated/data/out.bin"
    assert place_file(blobs, blobs.put_bytes(data), str(target)) == stat_of(target)
    assert target.read_bytes() == data
    plain = tmp_path / "plain"
    os.close(create(str(plain), 0o644))
    assert target.stat().st_mode & 0o777 in (plain.stat().st_mode & 0o777, 0o444)
    assert [file.name for file in target.parent.iterdir()] == ["out.bin"]


@sizes
def test_an_executable_is_placed_executable(tmp_path: Path, blobs: Blobs, data: bytes, ordinary_user: None) -> None:
    target = tmp_path / "tool"
    place_file(blobs, blobs.put_bytes(data) + "*", str(target))
    assert target.stat().st_mode & 0o700 == 0o700 and target.stat().st_nlink == 1
    assert blobs.verify(digest_of(data))


@sizes
def test_no_edit_after_placing_can_share_the_stat(tmp_path: Path, blobs: Blobs, data: bytes) -> None:
    target = tmp_path / "out"
    digest = blobs.put_bytes(data)
    for _ in range(20):
        placed = place_file(blobs, digest, str(target))
        assert is_settled(placed, tmp_path)
        target.chmod(0o644)
        with target.open("r+b") as file:
            file.write(data[:1])
        assert stat_of(target) != placed and stat_of(target)[0] == placed[0]


def test_over_1_mib_a_hard_link_is_placed_except_as_root(
    tmp_path: Path, blobs: Blobs, ordinary_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = blobs.put_bytes(SIZES["linked"])
    place_file(blobs, digest, str(tmp_path / "out"))
    assert (tmp_path / "out").samefile(blobs.blob_path(digest)) and blobs.verify(digest)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    place_file(blobs, digest, str(tmp_path / "out"))
    assert not (tmp_path / "out").samefile(blobs.blob_path(digest))


def test_a_blob_out_of_links_is_copied(
    tmp_path: Path, blobs: Blobs, ordinary_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = blobs.put_bytes(SIZES["linked"])
    asked: list[object] = []

    def too_many(source: object, target: object) -> None:
        asked.append(target)
        raise OSError(errno.EMLINK, "Too many links")

    monkeypatch.setattr(os, "link", too_many)
    place_file(blobs, digest, str(tmp_path / "out"))
    assert asked and (tmp_path / "out").stat().st_nlink == 1
    assert (tmp_path / "out").read_bytes() == SIZES["linked"]


def test_where_the_file_system_can_the_blocks_are_shared(
    tmp_path: Path, blobs: Blobs, ordinary_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(source: str, descriptor: int) -> bool:
        os.write(descriptor, Path(source).read_bytes())
        return True

    monkeypatch.setattr(place, "reflink", share)
    monkeypatch.setattr(place, "copy", lambda *_: pytest.fail("copied"))
    monkeypatch.setattr(os, "link", lambda *_: pytest.fail("linked"))
    for name in ("large", "linked"):
        target = tmp_path / name
        assert place_file(blobs, blobs.put_bytes(SIZES[name]), str(target)) == stat_of(target)
        assert target.read_bytes() == SIZES[name]


def test_who_reads_a_target_while_it_is_replaced_never_sees_a_part(tmp_path: Path, blobs: Blobs) -> None:
    target = tmp_path / "out"
    contents = [b"a" * 100_000, b"b" * 200_000]
    digests = [blobs.put_bytes(data) for data in contents]
    place_file(blobs, digests[0], str(target))
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                seen.add(target.read_bytes())
            except FileNotFoundError:
                pass

    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(100):
        place_file(blobs, digests[number % 2], str(target))
    done.set()
    watcher.join()
    assert seen and seen <= set(contents)


def test_a_failed_placing_leaves_the_old_file_and_nothing_beside(
    tmp_path: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "generated/out"
    place_file(blobs, blobs.put_bytes(b"old"), str(target))
    digest = blobs.put_bytes(b"new")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, "write_all", full)
    with pytest.raises(OSError, match="No space"):
        place_file(blobs, digest, str(target))
    assert target.read_bytes() == b"old" and len(list(target.parent.iterdir())) == 1


@sizes
def test_a_missing_blob_leaves_the_old_file(tmp_path: Path, blobs: Blobs, data: bytes) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(StoreError):
        place_file(blobs, digest_of(data), str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "old"


def test_a_link_at_the_target_is_replaced_and_not_written_through(tmp_path: Path, blobs: Blobs) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").symlink_to("precious")
    place_file(blobs, blobs.put_bytes(b"new"), str(tmp_path / "out"))
    assert not (tmp_path / "out").is_symlink() and (tmp_path / "precious").read_text() == "precious"


def test_an_empty_folder_gives_way_to_a_file_and_a_full_one_does_not(tmp_path: Path, blobs: Blobs) -> None:
    digest = blobs.put_bytes(b"new")
    (tmp_path / "empty").mkdir()
    place_file(blobs, digest, str(tmp_path / "empty"))
    assert (tmp_path / "empty").read_bytes() == b"new"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/f").write_text("precious")
    with pytest.raises(Edited) as caught:
        place_file(blobs, digest, str(tmp_path / "full"))
    assert caught.value.facts and caught.value.todo and (tmp_path / "full/f").read_text() == "precious"


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "n" * 240, "-rf", "new\nline", "*"])
def test_long_and_odd_names_are_placed(tmp_path: Path, blobs: Blobs, name: str) -> None:
    place_file(blobs, blobs.put_bytes(b"data"), str(tmp_path / "d" / name))
    assert os.listdir(tmp_path / "d") == [name]


@pytest.mark.parametrize("same_device", [True, False])
def test_what_a_killed_process_left_is_no_obstacle_and_nothing_is_left_among_the_results(
    tmp_path: Path, blobs: Blobs, ordinary_user: None, monkeypatch: pytest.MonkeyPatch, same_device: bool
) -> None:
    left = tmp_path / "left" if same_device else Path(place._beside(str(tmp_path / "results" / "out")))
    left.parent.mkdir(exist_ok=True)
    (tmp_path / "results").mkdir(exist_ok=True)
    monkeypatch.setattr(blobs, "temporary", lambda: str(left))
    if not same_device:
        monkeypatch.setattr(place, "_device", lambda destination: -1)
    for name, data in SIZES.items():
        digest = blobs.put_bytes(data)
        left.write_text("left over")
        place_file(blobs, digest, str(tmp_path / "results" / "out"))
        assert (tmp_path / "results" / "out").read_bytes() == data, name
        assert os.listdir(tmp_path / "results") == ["out"] and not left.exists()


@pytest.mark.parametrize("same_device", [True, False])
def test_a_finished_file_is_moved_to_its_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_device: bool
) -> None:
    source, target = tmp_path / "step/out", tmp_path / "generated/deep/out"
    source.parent.mkdir()
    if not same_device:
        rename = os.rename

        def refuse(one: str, two: str) -> None:
            if one == str(source):
                raise OSError(errno.EXDEV, "another device")
            rename(one, two)

        monkeypatch.setattr(os, "rename", refuse)
    for mode in (0o600, 0o444, 0o755):
        source.write_bytes(b"new")
        source.chmod(mode)
        placed = place_moved(str(source), str(target))
        assert is_settled(placed, tmp_path)
        assert placed == stat_of(target) and target.read_bytes() == b"new" and not source.exists()
        assert target.stat().st_mode & 0o700 == (0o700 if mode == 0o755 else 0o600)
        target.write_bytes(b"edi")
        assert stat_of(target) != placed


def test_an_output_that_is_a_link_to_an_input_is_copied(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("input")
    before = stat_of(data)
    (tmp_path / "hard").hardlink_to(data)
    (tmp_path / "soft").symlink_to(data)
    for name in ("hard", "soft"):
        place_moved(str(tmp_path / name), str(tmp_path / "generated" / name))
        placed = tmp_path / "generated" / name
        assert placed.read_text() == "input" and not placed.is_symlink() and not placed.samefile(data)
        assert not os.path.lexists(tmp_path / name)
    assert stat_of(data) == before


# Folders


def make_folder(folder: Path) -> Path:
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "empty/inner").mkdir(parents=True)
    (folder / "sub/large").write_bytes(SIZES["large"])
    (folder / "sub/deep/new\nline").write_text("odd")
    (folder / "-tool").write_text("#!/bin/sh")
    (folder / "-tool").chmod(0o755)
    (folder / "sub/link").symlink_to("../-tool")
    (folder / "folder-link").symlink_to("sub/deep")
    return folder


def test_a_folder_survives_the_store(tmp_path: Path, blobs: Blobs) -> None:
    source = make_folder(tmp_path / "source")
    target = tmp_path / "generated/model"
    digest = put_folder(blobs, source)
    stats = place_folder(blobs, digest, f"{target}/", tmp_path / "aside")
    assert tree(target) == tree(source)
    assert stats == {path: stat_of(target / path) for path, (kind, _) in tree(source).items() if kind != "d"}
    assert not (tmp_path / "aside").exists()


def test_placing_a_folder_again_writes_only_what_differs(
    tmp_path: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = make_folder(tmp_path / "source"), tmp_path / "model"
    digest = put_folder(blobs, source)
    first = place_folder(blobs, digest, str(target), tmp_path / "aside")
    (target / "sub/large").unlink()
    (target / "-tool").chmod(0o644)
    placed: list[str] = []
    real = place.place_file
    monkeypatch.setattr(place, "place_file", lambda b, d, path: (placed.append(path), real(b, d, path))[1])
    second = place_folder(blobs, digest, str(target), tmp_path / "aside")
    assert {os.path.relpath(path, target) for path in placed} == {"sub/large", "-tool"}
    assert tree(target) == tree(source) and second["sub/link"] == first["sub/link"]


def test_a_kept_file_edited_in_the_next_moment_has_another_stat(tmp_path: Path, blobs: Blobs) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/f").write_text("same")
    digest = put_folder(blobs, tmp_path / "source")
    file = tmp_path / "model/f"
    file.parent.mkdir()
    for _ in range(20):
        file.write_text("same")
        stats = place_folder(blobs, digest, str(file.parent), tmp_path / "aside")
        assert is_settled(stats["f"], tmp_path)
        file.write_text("edit")
        assert stats["f"] != stat_of(file)


def test_foreign_files_are_moved_aside_and_never_deleted(tmp_path: Path, blobs: Blobs) -> None:
    source, target, aside = make_folder(tmp_path / "source"), tmp_path / "model", tmp_path / "aside"
    digest = put_folder(blobs, source)
    (target / "sub/deep").mkdir(parents=True)
    (target / "sub/notes.txt").write_text("precious 1")
    (target / "own/more").mkdir(parents=True)
    (target / "own/more/f").write_text("precious 2")
    (target / "-tool").mkdir()
    (target / "-tool/f").write_text("precious 3")
    (target / "empty").write_text("precious 4")
    (target / "nothing/in/it").mkdir(parents=True)
    aside.mkdir()
    (aside / "empty").write_text("precious 0")
    place_folder(blobs, digest, str(target), aside)
    assert tree(target) == tree(source)
    texts = {str(file.relative_to(aside)): file.read_text() for file in aside.rglob("*") if file.is_file()}
    assert texts == {
        "empty": "precious 0",
        "sub/notes.txt": "precious 1",
        "own/more/f": "precious 2",
        "-tool/f": "precious 3",
        "empty.2": "precious 4",
    }


def test_a_link_in_place_of_a_folder_is_not_written_through(tmp_path: Path, blobs: Blobs) -> None:
    source, target, outside = make_folder(tmp_path / "source"), tmp_path / "model", tmp_path / "outside"
    digest = put_folder(blobs, source)
    target.mkdir()
    outside.mkdir()
    (target / "sub").symlink_to(outside)
    place_folder(blobs, digest, str(target), tmp_path / "aside")
    assert tree(target) == tree(source) and os.listdir(outside) == []
    other = tmp_path / "other"
    other.symlink_to(outside)
    place_folder(blobs, digest, str(other), tmp_path / "aside")
    assert not other.is_symlink() and tree(other) == tree(source) and os.listdir(outside) == []


def test_a_folder_of_which_a_blob_is_missing_is_not_touched(tmp_path: Path, blobs: Blobs) -> None:
    source, target = make_folder(tmp_path / "source"), tmp_path / "model"
    digest = put_folder(blobs, source)
    target.mkdir()
    (target / "mine").write_text("precious")
    blobs.blob_path(digest_of(SIZES["large"])).unlink()
    with pytest.raises(StoreError):
        place_folder(blobs, digest, str(target), tmp_path / "aside")
    assert os.listdir(target) == ["mine"]


# Removing


def test_removing_stops_at_the_given_folder_and_at_what_is_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "generated/a/b/c/f"
    file.parent.mkdir(parents=True)
    file.write_text("")
    (tmp_path / "generated/a/keep").write_text("")
    remove_file(str(file))
    remove_file(str(file))
    remove_empty_parents(str(file), str(tmp_path / "generated"))
    assert os.listdir(tmp_path / "generated/a") == ["keep"]
    (tmp_path / "generated/a/keep").unlink()
    remove_empty_parents(str(file), str(tmp_path / "generated"))
    assert os.listdir(tmp_path / "generated") == []


# Inputs


@sizes
@pytest.mark.parametrize("mark", ["", "*"])
def test_an_input_comes_read_only_from_the_store(tmp_path: Path, blobs: Blobs, data: bytes, mark: str) -> None:
    digest = blobs.put_bytes(data) + mark
    for number, location in enumerate((None, blobs.locate(digest))):
        place = tmp_path / f"step{number}/data/raw.csv"
        place_input(blobs, location, digest, str(place))
        assert place.read_bytes() == data and not place.is_symlink()
        assert place.stat().st_mode & 0o777 == (0o555 if mark else 0o444)
    assert blobs.verify(digest)


def test_a_worker_without_index_places_an_input_by_its_location(tmp_path: Path, blobs: Blobs) -> None:
    worker = Blobs(blobs.root, MemoryIndex(), follow=False)
    for name, data in SIZES.items():
        digest = blobs.put_bytes(data)
        place_input(worker, blobs.locate(digest), digest, str(tmp_path / name))
        assert (tmp_path / name).read_bytes() == data


def test_a_large_input_is_a_hard_link_where_blocks_cannot_be_shared(
    tmp_path: Path, blobs: Blobs, ordinary_user: None
) -> None:
    digest = blobs.put_bytes(SIZES["linked"])
    place_input(blobs, blobs.locate(digest), digest, str(tmp_path / "step/in"))
    assert (tmp_path / "step/in").samefile(blobs.blob_path(digest))
    raw = tmp_path / "raw"
    raw.write_bytes(SIZES["linked"])
    place_input(blobs, None, digest, str(tmp_path / "step/raw"), str(raw))
    assert (tmp_path / "step/raw").samefile(raw)


def test_a_source_that_changed_since_it_was_hashed_is_noticed(tmp_path: Path, blobs: Blobs) -> None:
    for name in ("small", "large"):
        data = SIZES[name]
        raw = tmp_path / "raw.csv"
        raw.write_bytes(data)
        place_input(blobs, None, digest_of(data), str(tmp_path / name), str(raw))
        assert (tmp_path / name).read_bytes() == data
        raw.write_bytes(data[::-1])
        with pytest.raises(FileChanged):
            place_input(blobs, None, digest_of(data), str(tmp_path / "other"), str(raw))
        assert not (tmp_path / "other").exists()


def test_a_source_whose_shared_copy_differs_is_noticed(
    tmp_path: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "reflink", lambda source, file: bool(os.write(file, Path(source).read_bytes())))
    raw = tmp_path / "raw"
    raw.write_bytes(SIZES["linked"])
    place_input(blobs, None, digest_of(SIZES["linked"]), str(tmp_path / "in"), str(raw))
    raw.write_bytes(SIZES["linked"][::-1])
    with pytest.raises(FileChanged):
        place_input(blobs, None, digest_of(SIZES["linked"]), str(tmp_path / "other"), str(raw))
    assert (tmp_path / "in").read_bytes() == SIZES["linked"] and not (tmp_path / "other").exists()


@sizes
def test_a_missing_input_is_a_store_error(tmp_path: Path, blobs: Blobs, data: bytes) -> None:
    for location in (None, ("" if len(data) > SMALL else "55.seg", 0, len(data))):
        with pytest.raises(StoreError):
            place_input(blobs, location, digest_of(data), str(tmp_path / "in"))
        assert not (tmp_path / "in").exists()


def test_a_damaged_blob_does_not_become_an_input(tmp_path: Path, blobs: Blobs) -> None:
    digest = blobs.put_bytes(SIZES["large"])
    location = blobs.locate(digest)
    blobs.blob_path(digest).chmod(0o644)
    blobs.blob_path(digest).write_bytes(SIZES["large"][::-1])
    with pytest.raises(StoreError):
        place_input(blobs, location, digest, str(tmp_path / "in"))
    assert not blobs.has(digest) and list((blobs.root / "corrupt").iterdir())


def test_a_folder_is_an_input_with_all_that_is_in_it(tmp_path: Path, blobs: Blobs) -> None:
    source = make_folder(tmp_path / "source")
    digest = put_folder(blobs, source)
    place_input(blobs, blobs.locate(digest), digest, str(tmp_path / "step/model"))
    assert tree(tmp_path / "step/model") == tree(source)
    empty = blobs.put_bytes(b"") + "/"
    place_input(blobs, None, empty, str(tmp_path / "step/empty"))
    assert os.listdir(tmp_path / "step/empty") == []


def test_a_folder_of_the_worktree_is_taken_from_there(tmp_path: Path, blobs: Blobs) -> None:
    source = make_folder(tmp_path / "source")
    digest = blobs.put_bytes(render_manifest(scan_folder(str(source)))) + "/"
    place_input(blobs, None, digest, str(tmp_path / "step/model"), str(source))
    assert tree(tmp_path / "step/model") == tree(source)

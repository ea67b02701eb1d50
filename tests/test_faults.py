"""A disk that fails, a sample of faults.py for every day, and disks that cannot do some things at all."""

from __future__ import annotations

import errno
import random
import sys
from pathlib import Path

import pytest
from faults import ERRNOS, FIRST, STORIES, Fault, Place, attempt, faults, kind, load, sound_calls, wanted
from faults_disk import LINKING, LOCKING, MODES, Call, always, run
from space import Space

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel has to ask about each call")

PARTS = 2
EACH = 8
"""Faults of one part: 32 in all; `python tests/faults.py --all` tries every call with every errno."""


def sample(story: str, home: Path) -> list[Fault]:
    """The faults to try of a story: of different kinds, the same in every run of the same calls."""
    first: dict[tuple[str, ...], Fault] = {}
    for fault, call in faults(story, sound_calls(home, story), list(ERRNOS)):
        first.setdefault(kind(fault, call), fault)
    kinds = sorted(first, key=repr)
    random.Random(story).shuffle(kinds)
    return [first[one] for one in kinds[: PARTS * EACH]]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("part", range(PARTS))
def test_after_a_fault_at_any_call_the_next_build_is_right(story: str, part: int, tmp_path: Path) -> None:
    load()
    for fault in sample(story, tmp_path)[part::PARTS]:
        attempt(Place(tmp_path), fault)


CANNOT = {
    "no more hard links to a file": (LINKING, errno.EMLINK),
    "no hard links": (LINKING, errno.EPERM),
    "no hard links across folders": (LINKING, errno.EXDEV),
    "no flock": (LOCKING, errno.ENOLCK),
    "no modes": (MODES, errno.EPERM),
    "no lasting": ({"fsync", "fdatasync"}, errno.EINVAL),
}


@pytest.mark.parametrize("what", CANNOT)
def test_on_a_disk_that_cannot_do_something_builds_work(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names, number = CANNOT[what]
    place = Place(tmp_path)
    for story in STORIES:
        place.begin(story)
        done = place.build(always(names, number))
        assert done.code == 0, done.text
        place.compare(place.tree(), wanted(STORIES[story][1]), done.text)
        (place.generated / "assets" / "data" / "large.bin").unlink()
        assert place.build(always(names, number)).code == 0
        place.compare(place.tree(), wanted(STORIES[story][1]), done.text)
    if names != {"fsync", "fdatasync"}:
        assert done.refused, "the story never asked for it"


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    load()
    place = Place(tmp_path)
    place.begin("first")
    done = place.build(lambda call, _: errno.EIO if (call.name, call.path) == ("listdir", "scripts") else 0)
    assert done.code == 5 and "→" in done.text and "nothing to build" not in done.text
    place.sound(FIRST)


def test_a_target_that_cannot_be_looked_at_is_neither_missing_nor_edited(tmp_path: Path) -> None:
    load()
    place = Place(tmp_path)
    place.begin("second")
    name = f"generated/{place.generated.name}/assets/data/a.txt"
    done = place.build(lambda call, _: errno.EIO if (call.name, call.path) == ("fstatat", name) else 0)
    assert done.code == 5 and "edited" not in done.text and "→" in done.text
    place.sound(STORIES["second"][1])


def test_a_failing_disk_is_told_with_file_and_reason(space: Space) -> None:
    load()
    space.write("script.py", 'rule("data/x", run=sh("echo x > {out}"))')
    done = run(
        ["build"],
        space.root,
        space.root.parent / "printed",
        lambda call, _: errno.ENOSPC if call.role == "worker" and call.name == "mkdir" else 0,
    )
    assert done.code == 5 and "No space left on device" in done.text and "make room" in done.text


def test_a_state_file_that_could_not_be_read_once_is_not_begun_anew(tmp_path: Path) -> None:
    load()
    place = Place(tmp_path)
    place.begin("second")
    refused: list[int] = []

    def refuse(call: Call, number: int) -> int:
        once = call.role == "coordinator" and call.name == "pread" and call.path.endswith(".db")
        if once and not refused:
            refused.append(number)
        return errno.EIO if refused == [number] and once else 0

    place.build(refuse)
    assert refused and not list((place.root / ".git/labmake/state").glob("*.broken"))
    place.sound(STORIES["second"][1])


def test_an_edit_that_could_not_be_looked_at_for_a_moment_is_not_overwritten(tmp_path: Path) -> None:
    load()
    place = Place(tmp_path)
    place.begin("second")
    edited = place.generated / "assets" / "data" / "a.txt"
    edited.write_text("mine\n")
    name = str(edited.relative_to(place.root))
    looks = [call for call in place.build().calls if (call.name, call.path) == ("fstatat", name)]
    for chosen in range(1, len(looks) + 1):
        seen = 0

        def refuse(call: Call, _: int, chosen: int = chosen) -> int:
            nonlocal seen
            seen += (call.name, call.path) == ("fstatat", name)
            return errno.EIO if seen == chosen and (call.name, call.path) == ("fstatat", name) else 0

        assert place.build(refuse).code in (3, 5)
        assert edited.read_text() == "mine\n"

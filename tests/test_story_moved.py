"""A project in another place: moved, copied, unpacked; nothing runs again, and no old path is believed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from space import Space

SCRIPT = """
source("data/raw.csv", "./raw.csv")
rule("data/x.txt", raw="data/raw.csv", run=sh("echo x >> NOTES; cat {raw} > {out}"))
rule("data/large.bin", x="data/x.txt", run=sh("echo large >> NOTES; (head -c 1200000 /dev/zero; cat {x}) > {out}"))
rule("data/py.txt", x="data/x.txt", run=py("src/tool.py:shout"))
rule("models/m/", x="data/x.txt", run=sh("echo model >> NOTES; cp {x} {out}/w; ln -s w {out}/l"))
"""


@pytest.fixture
def built(space: Space) -> Space:
    space.write("./raw.csv", "1\n")
    space.write("src/tool.py", "def shout(x: str):\n    return x.upper() + '!'\n")
    space.write("script.py", SCRIPT.replace("NOTES", str(space.notes)))
    space.build()
    assert sorted(space.noted()) == ["large", "model", "x"]
    space.git("add", ".")
    space.git("commit", "-qm", "all")
    return space


def moved(space: Space, name: str) -> Space:
    """The space after `mv project name`."""
    to = space.root.parent / name
    space.root.rename(to)
    return Space(to, space.experiment)


def goes_on(space: Space) -> None:
    """Nothing runs, all files are right; then an edit is followed, and only here."""
    space.build()
    assert space.ran == [] and space.read("data/py.txt") == "1\n!"
    space.path("data/x.txt").unlink()
    space.build()
    assert space.ran == [] and space.restored == ["data/x.txt"]
    space.write("./raw.csv", "2\n")
    space.path("hashes.txt").unlink(missing_ok=True)
    space.build()
    assert space.ran == ["data/large.bin", "data/py.txt", "data/x.txt", "models/m/"]
    assert space.read("data/py.txt") == "2\n!" and space.read("models/m/l") == "2\n"
    space.build()
    assert space.ran == space.restored == []


def test_a_moved_project_runs_nothing(built: Space) -> None:
    goes_on(moved(built, "elsewhere with a space"))


def test_another_project_at_the_old_place_is_not_taken_for_it(built: Space) -> None:
    before = built.root
    new = moved(built, "elsewhere")
    shutil.copytree(new.root, before, symlinks=True)
    (before / "generated" / built.experiment / "assets" / "data" / "x.txt").write_text("mine\n")
    old = Space(before, built.experiment)
    assert "was edited" in old.build(code=3)
    goes_on(new)


@pytest.mark.parametrize("git", ["with its git folder", "without it"])
def test_a_copied_project_runs_nothing_and_leaves_the_original_alone(built: Space, git: str) -> None:
    to = built.root.parent / "copy"
    subprocess.run(["cp", "-a", str(built.root), str(to)], check=True)
    other = Space(to, built.experiment)
    if git == "without it":
        (to / ".git" / "labmake").rename(to / ".labmake")
        shutil.rmtree(to / ".git")
    before = built.files()
    goes_on(other)
    assert built.files() == before
    built.build()
    assert built.ran == built.restored == []


def test_a_copy_without_labmakes_folder_is_built_anew_around_what_lies_there(built: Space) -> None:
    to = built.root.parent / "copy"
    shutil.copytree(built.root, to, symlinks=True, ignore=shutil.ignore_patterns("labmake", "generated"))
    other = Space(to, built.experiment)
    other.build()
    assert other.ran == ["data/large.bin", "data/py.txt", "data/x.txt", "models/m/"]
    assert other.files() == built.files()


def test_a_linked_worktree_that_git_moved_runs_nothing(built: Space) -> None:
    place, to = built.root.parent / "linked", built.root.parent / "moved"
    built.git("worktree", "add", "-q", "-b", "other", str(place))
    other = Space(place, built.experiment)
    other.build()
    assert other.ran == []
    built.git("worktree", "move", str(place), str(to))
    goes_on(Space(to, built.experiment))
    built.build()
    assert built.ran == built.restored == [] and built.read("data/py.txt") == "1\n!"


def test_a_moved_main_worktree_and_its_linked_one_still_share(built: Space) -> None:
    linked = built.root.parent / "linked"
    built.git("worktree", "add", "-q", "-b", "other", str(linked))
    new = moved(built, "elsewhere")
    new.git("worktree", "repair", str(linked))
    other = Space(linked, built.experiment)
    other.build()
    assert other.ran == [] and other.read("data/py.txt") == "1\n!"


def test_a_project_is_the_same_through_a_link(built: Space) -> None:
    link = built.root.parent / "link"
    link.symlink_to(built.root)
    Space(link, built.experiment).build()
    assert len(list((built.root / ".git/labmake/state").glob("*.db"))) == 1
    assert os.path.samefile(link, built.root) and Path(link).is_symlink()

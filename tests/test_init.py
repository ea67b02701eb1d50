"""`labmake init`: a folder becomes a project, what was there stays, and the sample experiment builds at once."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from space import Done, Space

from labmake.experiments import scaffold
from labmake.layout import experiments, find_project

FILES = [
    *(".envrc", ".gitignore", "Makefile", "pyproject.toml", "readme.md", "rules.py"),
    *("src/check-hash.sh", "src/data_access.py", "src/data_engineering.py", "src/model.py", "src/visualization.py"),
]
LABMAKE = f"{shlex.quote(sys.executable)} -m labmake.cli.main"


@pytest.fixture
def bare(tmp_path: Path) -> Space:
    """An empty folder, and nothing of git around it."""
    root = tmp_path / "lab"
    root.mkdir()
    return Space(root, experiment="")


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, but git's own: path → hash of mode and content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(b"%o " % path.stat().st_mode + path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def command(folder: Path, *words: str, **variables: str) -> Done:
    """Run a command in a folder; a `labmake` that make starts is the one under test."""
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env={**os.environ, "LABMAKE": LABMAKE, **variables}
    )
    return Done(done.returncode, done.stdout + done.stderr)


def recorded(space: Space, *contents: str) -> Path:
    """A project with sources of these contents, brought and pinned; returns its hashes.txt."""
    space.run("init")
    lines = ["from labmake import source"]
    for number, content in enumerate(contents):
        (space.root.parent / f"{number}.csv").write_text(content)
        lines.append(f"source('data/{number} é.csv', {str(space.root.parent / f'{number}.csv')!r})")
    (sample,) = (space.root / "scripts").iterdir()
    (sample / "script.py").write_text("\n".join(lines) + "\n")
    (sample / "report.md").unlink()
    space.build()
    return sample / "hashes.txt"


def test_an_empty_folder_gets_every_file_and_a_repository_without_a_commit(bare: Space) -> None:
    bare.run("init")
    (sample,) = experiments(find_project(bare.root))
    assert sample.endswith("-First-Steps")
    assert sorted(tree(bare.root)) == sorted([*FILES, f"scripts/{sample}/script.py", f"scripts/{sample}/report.md"])
    for name in FILES:
        assert f"made  {name}\n" in bare.last
    assert bare.git("status", "--short", "--branch").startswith("## No commits yet")
    assert "@" not in (bare.root / "readme.md").read_text() + (bare.root / "pyproject.toml").read_text()


def test_a_folder_that_is_not_there_is_made_whatever_its_name(tmp_path: Path) -> None:
    start = Space(tmp_path)
    start.run("init", "Größe & 'Maß'/第一 project")
    made = tmp_path / "Größe & 'Maß'" / "第一 project"
    assert (made / "readme.md").read_text().startswith("# 第一 project\n")
    assert tomllib.loads((made / "pyproject.toml").read_text())["project"]["name"] == "project"
    there = shlex.split(start.last.text.splitlines()[-1].partition("build it:")[2])
    assert there == ["cd", str(made), "&&", "labmake"]


def test_a_second_call_changes_nothing_and_says_so(bare: Space) -> None:
    bare.run("init")
    before = tree(bare.root)
    bare.run("init")
    assert tree(bare.root) == before
    assert "nothing to do" in bare.last and "made" not in bare.last


def test_the_new_project_builds_its_report_and_then_has_nothing_to_do(bare: Space) -> None:
    bare.run("init")
    bare.run()
    assert "outputs/report.pdf" in bare.ran and "data/walks/7.json" in bare.ran
    (outputs,) = (bare.root / "generated").glob("*/outputs")
    assert (outputs / "report.pdf").read_bytes().startswith(b"%PDF-")
    words = " ".join(re.sub(r"<[^>]*>", "", (outputs / "report.html").read_text()).split())
    assert re.search(r"After 100 steps the walkers are \d+\.\d ± \d\.\d steps", words)
    assert command(bare.root, "sh", "src/check-hash.sh").code == 0
    bare.run()
    assert bare.ran == [] and "up to date" in bare.last
    assert bare.git("status", "--short", "generated") == ""


def test_make_takes_several_goals_into_one_labmake_call_each_time_it_is_asked(bare: Space) -> None:
    bare.run("init")
    goals = ["data/draws.json", "data/walks/3.json"]
    first = command(bare.root, "make", "-j2", *goals)
    assert first.code == 0 and "2 made" in first
    assert "up to date: 2 targets" in command(bare.root, "make", *goals)
    whole = next(bare.root.glob("generated/*/assets/data/draws.json")).relative_to(bare.root)
    assert "up to date: 1 target" in command(bare.root, "make", str(whole)), "a goal that is there is asked for too"


def test_make_hands_odd_goals_over_as_they_were_typed(bare: Space) -> None:
    bare.run("init")
    goals = ["--", "it's.csv", "a%b", "$HOME", 'a"b', "a;b", "models/m/", "other:data/x.csv", "src", "-x", "q?*"]
    echo = f"{shlex.quote(sys.executable)} -c 'import sys; print(sys.argv)'"
    shown = command(bare.root, "make", *goals, LABMAKE=echo)
    assert shown.text.splitlines() == [str(["-c", "build", *goals])]


def test_bare_make_is_bare_labmake_and_its_failure_is_makes(bare: Space) -> None:
    bare.run("init")
    assert command(bare.root, "make", LABMAKE="echo asked").text == "asked\n"
    assert command(bare.root, "make", "x", LABMAKE="false #").code == 2


def test_a_repository_keeps_its_own_files_and_gets_what_it_lacks(space: Space) -> None:
    own = {"Makefile": "test:\n\ttrue\n", "README.md": "mine", "pyproject.toml": "[project]\nname = 'x'\n"}
    for name, text in own.items():
        (space.root / name).write_text(text)
    (space.root / ".gitignore").write_text("*.log\n/generated\n__pycache__")
    space.run("init")
    for name, text in own.items():
        assert (space.root / name).read_text() == text
        assert f"kept      {name}" in space.last
    assert not (space.root / "readme.md").exists()
    assert (
        space.root / ".gitignore"
    ).read_text() == "*.log\n/generated\n__pycache__\n.labmake/\n.venv/\n.direnv/\n*.egg-info/\n"
    assert "added to  .gitignore   .labmake/, .venv/, .direnv/, *.egg-info/" in space.last
    assert "git repository" not in space.last
    assert "generated/%: FORCE" in space.last and "add labmake to its dependencies" in space.last
    space.run("init")
    assert "nothing to do" in space.last


def test_the_rule_that_init_advises_lets_an_existing_makefile_ask_labmake(space: Space) -> None:
    (space.root / "Makefile").write_text("test:\n\ttrue\n")
    space.run("init")
    advice = next(line for line in space.last.text.splitlines() if "  Makefile" in line).split("`")
    (space.root / "Makefile").write_text(f"test:\n\ttrue\n\n{advice[1]}\n{advice[3]}\n".replace("labmake", "echo ask"))
    (space.root / "generated").mkdir()
    (space.root / "generated" / "x.csv").touch()
    for goal in ("generated/x.csv", "generated/new/y.csv"):
        assert command(space.root, "make", goal).text == f"ask build {goal}\n"


def test_a_folder_below_a_repository_becomes_a_project_of_that_repository(space: Space) -> None:
    space.git("commit", "--allow-empty", "-qm", "one")
    space.run("init", "analysis")
    assert not (space.root / "analysis" / ".git").exists()
    assert find_project(space.root / "analysis").root == space.root / "analysis"
    assert space.git("log", "--oneline").count("\n") == 1


def test_a_linked_worktree_is_a_repository_already(space: Space) -> None:
    space.git("commit", "--allow-empty", "-qm", "one")
    space.git("worktree", "add", "-q", "../linked")
    space.run("init", "../linked")
    assert (space.root.parent / "linked" / ".git").is_file() and "git repository" not in space.last


def test_without_git_the_project_is_made_and_it_is_said(bare: Space, tmp_path: Path) -> None:
    bare.run("init", env={"PATH": str(tmp_path)})
    assert "git is not installed" in bare.last and not (bare.root / ".git").exists()
    assert (bare.root / "Makefile").exists()


def test_a_project_with_an_experiment_gets_no_sample_and_no_modules_of_it(space: Space) -> None:
    space.write("report.md", "# Mine\n")
    space.run("init")
    assert [path.name for path in (space.root / "scripts").iterdir()] == [space.experiment]
    assert sorted(os.listdir(space.root / "src")) == ["check-hash.sh"]
    assert "scripts/   1 experiment" in space.last


def test_a_module_of_ones_own_is_kept_and_no_sample_is_added_that_could_not_run(bare: Space) -> None:
    own = bare.write("src/model.py", "def fit(): ...\n")
    bare.run("init")
    assert own.read_text() == "def fit(): ...\n" and "kept      src/model.py" in bare.last
    assert experiments(find_project(bare.root)) == [] and "left out  scripts/" in bare.last
    before = tree(bare.root)
    bare.run("init")
    assert tree(bare.root) == before and "nothing to do" in bare.last


@pytest.mark.parametrize("name", ["src", "scripts", "generated"])
def test_a_file_in_the_place_of_a_folder_is_an_error_before_anything_is_changed(bare: Space, name: str) -> None:
    (bare.root / name).write_text("mine")
    bare.run("init", code=2)
    assert os.listdir(bare.root) == [name]
    assert f"in the way  {name} is a file, and has to be a folder" in bare.last and "→" in bare.last


def test_a_folder_or_broken_link_in_the_place_of_a_file_is_an_error_too(bare: Space) -> None:
    (bare.root / "Makefile").mkdir()
    (bare.root / ".gitignore").symlink_to("nowhere")
    bare.run("init", code=2)
    assert sorted(os.listdir(bare.root)) == [".gitignore", "Makefile"]
    assert "Makefile is a folder" in bare.last and ".gitignore is a broken link" in bare.last


def test_a_path_through_a_file_is_an_error(bare: Space) -> None:
    (bare.root / "notes").write_text("mine")
    bare.run("init", "notes/project", code=2)
    assert "this is none" in bare.last and os.listdir(bare.root) == ["notes"]


def test_init_inside_a_projects_own_folders_names_the_project(bare: Space) -> None:
    bare.run("init")
    before = tree(bare.root)
    bare.run("init", cwd=bare.root / "src", code=2)
    assert f"project  {bare.root}\n" in bare.last and tree(bare.root) == before


def test_what_the_sample_lacks_is_named_with_the_command_for_it(bare: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from labmake.cli.main import command as labmake

    monkeypatch.setattr(scaffold, "SAMPLE_NEEDS", ("pandas", "no_such_package"))
    said = CliRunner().invoke(labmake, ["init", str(bare.root)]).output
    assert "pip install no_such_package\n" in said


def test_what_init_writes_is_formatted_and_its_names_are_portable(bare: Space) -> None:
    bare.run("init")
    for words in (["check", "--select", "E,F,I,UP,B,C4,SIM,RUF"], ["format", "--check"]):
        done = command(bare.root, sys.executable, "-m", "ruff", *words, "--no-cache", "--line-length", "120", ".")
        assert done.code == 0, done.text
    assert tomllib.loads((bare.root / "pyproject.toml").read_text())["tool"]["poetry"]["package-mode"] is False
    assert command(bare.root, "bash", "-n", ".envrc").code == 0
    assert os.access(bare.root / "src" / "check-hash.sh", os.X_OK)


def test_check_hash_passes_after_a_build_from_any_folder(bare: Space) -> None:
    hashes = recorded(bare, "a\n1\n", "a\n2\n")
    done = command(bare.root, "sh", "src/check-hash.sh")
    assert done.code == 0 and "2 as recorded" in done
    assert command(bare.root / "src", "sh", "check-hash.sh", os.path.relpath(hashes, bare.root / "src")).code == 0


def test_check_hash_fails_when_a_pinned_file_changes_or_is_missing(bare: Space) -> None:
    hashes = recorded(bare, "a\n1\n", "a\n2\n")
    (data,) = bare.root.glob("generated/*/assets/data")
    changed = data / "0 é.csv"
    changed.unlink()
    changed.write_text("a\n9\n")
    done = command(bare.root, "sh", "src/check-hash.sh")
    assert done.code == 1 and "0 é.csv: FAILED" in done and "1 é.csv" not in done
    changed.unlink()
    assert command(bare.root, "sh", "src/check-hash.sh").code == 1
    assert command(bare.root, "sh", "src/check-hash.sh", "missing.txt").code == 2
    hashes.write_text(hashes.read_text() + "no hash\n")
    changed.write_text("a\n1\n")
    assert command(bare.root, "sh", "src/check-hash.sh").code == 1, "a line that says nothing is not passed over"


def test_check_hash_tells_addresses_and_leaves_comments_and_line_ends_of_editors_alone(bare: Space) -> None:
    hashes = recorded(bare, "a\n1\n")
    address = f"{'0' * 64}  postgresql:///lab?query=select 1\n"
    hashes.write_bytes((f"# checked by hand\n\n{address}" + hashes.read_text()).replace("\n", "\r\n").encode())
    done = command(bare.root, "sh", "src/check-hash.sh")
    assert done.code == 0 and "1 as recorded" in done
    assert "not checked: postgresql:///lab?query=select 1\n" in done
    hashes.write_text(address)
    assert command(bare.root, "sh", "src/check-hash.sh").code == 0

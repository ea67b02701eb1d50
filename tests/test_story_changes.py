"""What changes and what runs again: nothing is made twice, and nothing stays as it was when it should not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from space import Space

CHAIN = """
rule("data/words.txt", raw="./raw.txt", run=sh("tr -s ' ' '\\\\n' < {raw} | sort > {out}"))
rule("data/count.txt", words="data/words.txt", run=sh("wc -l < {words} > {out}"))
rule("outputs/answer.txt", count="data/count.txt", run=py("src/answer.py:say", greeting="hello"))
"""

ANSWER = """
    def say(count, greeting):
        return f"{greeting} {count.read_text()}"
    """

ALL = ["data/count.txt", "data/words.txt", "outputs/answer.txt"]


@pytest.fixture
def chain(space: Space) -> Space:
    """Three steps one after another, built."""
    space.write("script.py", CHAIN)
    space.write("./raw.txt", "b a\n")
    space.write("src/answer.py", ANSWER)
    space.build()
    assert space.ran == ALL and space.read("outputs/answer.txt") == "hello 2\n"
    return space


def test_a_changed_source_reruns_what_depends_on_it_until_the_results_are_the_same(chain: Space) -> None:
    chain.write("./raw.txt", "b c\n")
    chain.build()
    assert chain.ran == ["data/count.txt", "data/words.txt"]  # still two words: the answer is not asked again
    chain.write("./raw.txt", "c   b\n")
    chain.build()
    assert chain.ran == ["data/words.txt"]


def test_a_touched_but_unchanged_source_runs_nothing(chain: Space) -> None:
    os.utime(chain.path("./raw.txt"))
    os.utime(chain.path("src/answer.py"))
    os.utime(chain.path("data/count.txt"))
    chain.build()
    assert chain.ran == []
    chain.build()
    assert chain.ran == [] and chain.restored == []


def test_a_source_edited_in_place_right_after_the_build_is_seen_though_size_and_mtime_are_the_same(
    chain: Space,
) -> None:
    raw = chain.path("./raw.txt")
    before = raw.stat()
    with raw.open("r+") as file:
        file.write("c d\n")
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert raw.stat().st_size == before.st_size and raw.stat().st_ino == before.st_ino
    chain.build()
    assert chain.ran == ["data/count.txt", "data/words.txt"] and chain.read("data/words.txt") == "c\nd\n"


def test_a_source_as_young_as_its_digest_is_read_again(space: Space) -> None:
    space.write("script.py", CHAIN)
    space.write("src/answer.py", ANSWER)
    raw = space.write("./raw.txt", "b a\n")
    later = raw.stat().st_mtime_ns + 3_600_000_000_000
    os.utime(raw, ns=(later, later))
    space.build()
    with raw.open("r+") as file:
        file.write("c d\n")
    os.utime(raw, ns=(later, later))
    space.build()
    assert space.ran == ["data/count.txt", "data/words.txt"] and space.read("data/words.txt") == "c\nd\n"


def test_a_changed_parameter_reruns_its_step_and_why_tells_old_and_new(chain: Space) -> None:
    chain.write("script.py", CHAIN.replace('"hello"', '"good morning"'))
    assert '"hello" → "good morning"' in chain.why("outputs/answer.txt")
    chain.build()
    assert chain.ran == ["outputs/answer.txt"]


def test_a_changed_shell_command_reruns_its_step(chain: Space) -> None:
    chain.write("script.py", CHAIN.replace("wc -l", "wc -c"))
    chain.build()
    assert chain.ran == ["data/count.txt", "outputs/answer.txt"]
    assert chain.read("outputs/answer.txt") == "hello 4\n"


def test_going_back_to_what_was_runs_nothing(chain: Space) -> None:
    for command in ("wc -c", "wc -l"):
        chain.write("script.py", CHAIN.replace("wc -l", command))
        chain.build()
    assert chain.ran == [] and chain.restored == ["data/count.txt", "outputs/answer.txt"]
    assert chain.read("outputs/answer.txt") == "hello 2\n"


def test_a_renamed_rule_takes_the_old_target_away(chain: Space) -> None:
    chain.write("script.py", CHAIN.replace("data/count.txt", "data/number.txt"))
    chain.build()
    assert chain.ran == ["data/number.txt", "outputs/answer.txt"]
    assert not chain.exists("data/count.txt") and chain.read("data/number.txt") == "2\n"
    chain.write("script.py", CHAIN)
    chain.build()
    assert chain.ran == [] and chain.exists("data/count.txt") and not chain.exists("data/number.txt")


def test_comments_docstrings_and_blank_lines_of_a_step_rerun_nothing(chain: Space) -> None:
    chain.write(
        "src/answer.py",
        '''
        """How the answer is told."""

        # A comment.

        def say(count, greeting):
            """Say it."""
            return f"{greeting} {count.read_text()}"  # another
        ''',
    )
    chain.build()
    assert chain.ran == []


def test_a_changed_function_of_src_reruns_the_users_of_its_file_only(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("a.txt", run=py("src/a.py:make"))
        rule("b.txt", run=py("src/b.py:make"))
        rule("c.txt", run=py("src/c.py:make"))
        """,
    )
    space.write("src/a.py", "from shared import word\n\ndef make():\n    return word() + ' a'\n")
    space.write("src/b.py", "import shared\n\ndef make():\n    return shared.word() + ' b'\n")
    space.write("src/c.py", "def make():\n    return 'c'\n")
    space.write("src/shared.py", "def word():\n    return 'one'\n")
    space.build()
    space.write("src/shared.py", "def word():\n    return 'two'\n")
    told = space.why("a.txt")
    assert "src/shared.py:2" in told
    space.build()
    assert space.ran == ["a.txt", "b.txt"] and space.read("a.txt") == "two a"
    space.write("src/c.py", "def make():\n    return 'd'\n")
    space.build()
    assert space.ran == ["c.txt"]


DECORATED = """
import json


@rule("a.txt")
def a():
    return "a"


@rule("b.json", text="a.txt")
def b(text: str, times=2):
    return json.dumps([text] * times)


rule("c.txt", text="a.txt", run=py("script.py:shout", loud=True))


def shout(text: str, loud):
    return text.upper() if loud else text
"""


def test_comments_in_a_decorated_step_rerun_nothing(space: Space) -> None:
    space.write("script.py", DECORATED)
    space.build()
    space.write("script.py", DECORATED.replace('    return "a"', '    # A comment.\n\n    return "a"'))
    space.build()
    assert space.ran == []


def test_the_rule_line_of_a_python_step_changes_that_step_only(space: Space) -> None:
    space.write("script.py", DECORATED)
    space.build()
    space.write("script.py", DECORATED.replace("loud=True", "loud=False"))
    space.build()
    assert space.ran == ["c.txt"] and space.read("c.txt") == "a"
    space.write("script.py", DECORATED.replace("loud=True", "loud=False") + '\nrule("d.txt", run=sh("touch {out}"))\n')
    space.build()
    assert space.ran == ["d.txt"]


def test_another_branch_and_back_runs_nothing_and_restores_the_files(chain: Space) -> None:
    chain.git("add", ".")
    chain.git("commit", "-qm", "first")
    chain.git("checkout", "-qb", "other")
    chain.write("./raw.txt", "a b c\n")
    chain.build()
    assert chain.read("outputs/answer.txt") == "hello 3\n"
    chain.git("commit", "-qam", "second")
    for branch, answer in (("main", "hello 2\n"), ("other", "hello 3\n")):
        chain.git("checkout", "-q", branch)
        chain.build()
        assert chain.ran == [] and chain.restored == ALL
        assert chain.read("outputs/answer.txt") == answer


def test_git_clean_takes_the_results_and_the_next_build_brings_them_back(chain: Space) -> None:
    before = chain.files()
    chain.git("add", ".")
    chain.git("commit", "-qm", "all")
    chain.git("clean", "-qxdf")
    assert chain.files() == {}
    chain.build()
    assert chain.ran == [] and chain.restored == ALL
    assert chain.files() == before


def test_a_copied_experiment_builds_and_runs_nothing(chain: Space) -> None:
    before = chain.files()
    scripts = chain.root / "scripts"
    shutil.copytree(scripts / chain.experiment, scripts / "2026-02-03-Copy")
    chain.build("-e", "Copy")
    assert chain.ran == [] and chain.restored == ALL
    copy = Space(chain.root, "2026-02-03-Copy")
    assert copy.files() == before
    copy.write("./raw.txt", "x y z\n")
    chain.build("-e", "Copy")
    assert chain.ran == ALL and copy.read("outputs/answer.txt") == "hello 3\n"
    assert chain.read("outputs/answer.txt") == "hello 2\n"


def test_a_copied_experiment_shares_dynamic_steps_folders_and_plans_too(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("raw/", run=sh("echo 1 > {out}/a; echo 2 > {out}/b"))
        rule("parts/{name}.txt", raw="raw/{name}", near="./near.txt", run=sh("cat {raw} {near} > {out}"))
        rule("all.txt", parts=each("parts/{name}.txt", name=find("raw/{name}")), run=sh("cat {parts} > {out}"))

        @plan("picked.txt")
        def picked():
            last = read_text("all.txt").split()[-1]
            return step(files=glob("./*.txt"), run=sh("cat {files} > {out}; echo {last} >> {out}", last=last))

        @rule("decorated.txt", all="all.txt")
        def decorated(all):
            return all.read_text()
        """,
    )
    space.write("./near.txt", "near\n")
    space.build()
    scripts = space.root / "scripts"
    shutil.copytree(scripts / space.experiment, scripts / "2026-02-03-Copy")
    space.build("-e", "Copy")
    assert space.ran == []
    assert Space(space.root, "2026-02-03-Copy").files() == space.files()


def test_two_new_experiments_with_the_same_actions_share_one_run(space: Space) -> None:
    script = f"""
        rule("x.txt", run=sh("echo ran >> {space.notes}; echo x > {{out}}"))
        """
    space.write("script.py", script)
    other = Space(space.root, "2026-02-03-Other")
    other.write("script.py", script)
    space.build(f"generated/{space.experiment}/assets/x.txt", f"generated/{other.experiment}/assets/x.txt")
    assert space.noted() == ["ran"]
    assert space.read("x.txt") == other.read("x.txt") == "x\n"


def test_a_linked_worktree_shares_the_store(chain: Space) -> None:
    chain.git("add", ".")
    chain.git("commit", "-qm", "all")
    tree = chain.root.parent / "linked"
    chain.git("worktree", "add", "-q", "-b", "second", str(tree))
    linked = Space(tree)
    linked.build()
    assert linked.ran == [] and linked.restored == ALL
    assert linked.files() == chain.files()
    linked.write("./raw.txt", "1 2 3 4\n")
    linked.build()
    assert linked.ran == ALL
    chain.build()
    assert chain.ran == [] and chain.read("outputs/answer.txt") == "hello 2\n"
    chain.write("./raw.txt", "1 2 3 4\n")
    chain.build()
    assert chain.ran == []


def test_a_build_forced_by_f_runs_the_targets_own_step_and_no_other(chain: Space) -> None:
    chain.build("-f", "data/count.txt")
    assert chain.ran == ["data/count.txt"]
    chain.build()
    assert chain.ran == []


def test_a_project_without_git_builds_and_keeps_its_store_beside(tmp_path: Path) -> None:
    space = Space(tmp_path / "plain")
    space.write("script.py", CHAIN)
    space.write("./raw.txt", "b a\n")
    space.write("src/answer.py", ANSWER)
    space.build()
    assert space.ran == ALL and (space.root / ".labmake").is_dir()
    shutil.rmtree(space.root / "generated")
    space.build()
    assert space.ran == [] and space.restored == ALL


def test_a_project_without_experiments_has_rules_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    space = Space(root, "")
    space.write(
        "rules.py",
        'rule("x.txt", run=sh("echo x > {out}"))\nrule("outputs/y.txt", x="x.txt", run=sh("cat {x} > {out}"))\n',
    )
    space.build()
    assert (root / "generated/assets/x.txt").read_text() == (root / "generated/outputs/y.txt").read_text() == "x\n"


def test_an_r_script_is_a_step_like_any_other(space: Space) -> None:
    assert shutil.which("Rscript"), "Rscript is needed: an R step is a part of what is promised"
    space.write("script.py", 'rule("squares.csv", raw="./raw.csv", run=r("src/square.R", power=2))')
    space.write("./raw.csv", "x\n1\n3\n")
    space.write("src/tools.R", "raised <- function(x, power) x^power\n")
    space.write(
        "src/square.R",
        """
        source("src/tools.R")
        words <- strsplit(commandArgs(trailingOnly = TRUE), "=")
        given <- setNames(sapply(words, `[`, 2), sapply(words, `[`, 1))
        table <- read.csv(given[["raw"]])
        table$y <- raised(table$x, as.numeric(given[["power"]]))
        write.csv(table, given[["out"]], row.names = FALSE, quote = FALSE)
        """,
    )
    space.build()
    assert space.read("squares.csv") == "x,y\n1,1\n3,9\n"
    space.write("src/tools.R", "raised <- function(x, power) x^power + 1\n")
    space.build()
    assert space.ran == ["squares.csv"] and space.read("squares.csv") == "x,y\n1,2\n3,10\n"


def test_make_asks_labmake_for_several_goals_at_once(chain: Space, tmp_path: Path) -> None:
    example = Path(__file__).parent.parent / "examples" / "covariance" / "Makefile"
    shutil.copy(example, chain.root / "Makefile")
    bin = tmp_path / "bin"
    bin.mkdir()
    command = bin / "labmake"
    command.write_text(f'#!/bin/sh\necho started >> {chain.notes}\nexec {sys.executable} -m labmake.cli.entry "$@"\n')
    command.chmod(0o755)
    shutil.rmtree(chain.root / "generated")
    base = f"generated/{chain.experiment}"
    env = {**os.environ, "PATH": f"{bin}:{os.environ['PATH']}"}

    def make(*goals: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", *goals], cwd=chain.root, env=env, capture_output=True, text=True, check=False)

    done = make(f"{base}/assets/data/words.txt", f"{base}/assets/data/count.txt")
    assert done.returncode == 0, done.stderr
    assert chain.noted() == ["started"]
    assert sorted(chain.files()) == ["data/count.txt", "data/words.txt"]
    done = make()
    assert done.returncode == 0 and chain.exists("outputs/answer.txt")
    assert make(f"{base}/assets/data/nothing.txt").returncode == 2


def test_large_inputs_are_hashed_beside_each_other_and_a_change_of_one_is_seen(space: Space) -> None:
    """They are hashed by threads (over 16 MiB)."""
    for name in "ab":
        space.write(f"/in/{name}.bin", name.encode() * (17 << 20))
    space.write("script.py", 'rule("data/{x}.txt", large="/in/{x}.bin", run=sh("head -c 1 {large} > {out}"))')
    space.build("data/a.txt", "data/b.txt")
    assert (space.read("data/a.txt"), space.read("data/b.txt")) == ("a", "b")
    space.write("/in/b.bin", b"c" + b"b" * ((17 << 20) - 1))
    space.build("data/a.txt", "data/b.txt")
    assert space.ran == ["data/b.txt"] and space.read("data/b.txt") == "c"


def test_many_deleted_outputs_are_restored_and_a_file_that_came_between_is_kept(space: Space) -> None:
    """Several processes place what is missing; one path is the user's by now."""
    space.write("./n.json", str(list(range(150))))
    space.write(
        "script.py",
        """
        rule("data/{i}.txt", run=sh("echo {i} > {out}"))
        rule("data/all.txt", every=each("data/{i}.txt", i="./n.json"), run=sh("cat {every} > {out}"))
        """,
    )
    space.build()
    before = space.files()
    for i in range(150):
        (space.path(f"data/{i}.txt")).unlink()
    space.build()
    assert space.ran == [] and len(space.restored) == 150 and space.files() == before
    for i in range(150):
        (space.path(f"data/{i}.txt")).unlink()
    space.write("data/7.txt", "mine")
    space.build(code=3)
    assert space.ran == [] and space.read("data/7.txt") == "mine" and space.read("data/8.txt") == "8\n"


def test_a_step_that_moves_its_input_into_its_output_keeps_what_it_made(space: Space) -> None:
    """Copies of inputs are used again for the next step: never one that has become a result."""
    space.write("./a.txt", "first")
    space.write("./b.txt", "second!")
    space.write(
        "script.py",
        """
        rule("data/a.txt", x="./a.txt", run=sh("mv {x} {out}"))
        rule("data/b.txt", x="./b.txt", after="data/a.txt", run=sh("ln {x} {out}"))
        rule("data/c/", x="./a.txt", after="data/b.txt", run=sh("mv {x} {out}"))
        rule("data/d.txt", x="./b.txt", after="data/c/", run=sh("chmod u+w {x}; echo more >> {x}; cp {x} {out}"))
        rule("data/e.txt", x="./b.txt", after="data/d.txt", run=sh("cat {x} > {out}"))
        """,
    )
    space.build("-j", "1")
    assert [space.read(f"data/{name}") for name in ("a.txt", "b.txt", "c/a.txt", "d.txt", "e.txt")] == [
        *("first", "second!", "first", "second!more\n", "second!")
    ]
    space.build()
    assert space.ran == []

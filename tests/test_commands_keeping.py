"""`labmake keep`: results are accepted under changed code or environment, on record, and under nothing else."""

from __future__ import annotations

import shutil

import pytest
from space import Space
from told import told

SCRIPT = """
rule("data/fit.txt", raw="./raw.txt", run=py("src/model.py:fit", rate=1))
rule("outputs/answer.txt", fit="data/fit.txt", run=sh("cat {fit} > {out}"))
"""
MODEL = """
    def fit(raw, rate):
        return raw.read_text() * rate
    """
FASTER = """
    def fit(raw, rate):
        text = raw.read_text()
        return "".join([text for _ in range(rate)])
    """


@pytest.fixture
def dear(space: Space) -> Space:
    """A fit that nobody wants to run again, and what is made of it; then its code was made faster."""
    space.write("script.py", SCRIPT)
    space.write("./raw.txt", "a\n")
    space.write("src/model.py", MODEL)
    space.git("config", "user.name", "Ada")
    space.git("config", "user.email", "ada@example.org")
    space.build()
    assert space.ran == ["data/fit.txt", "outputs/answer.txt"]
    space.write("src/model.py", FASTER)
    return space


def test_a_kept_result_counts_as_made_by_the_changed_code(dear: Space) -> None:
    assert "would run" in dear.why("data/fit.txt")
    assert "kept data/fit.txt: code src/model.py:2" in dear.run("keep", "fit", "-m", "only faster")
    dear.build()
    assert dear.ran == [] and dear.restored == []
    dear.run("clean")
    dear.build()
    assert dear.ran == [] and "data/fit.txt" in dear.restored


def test_why_and_logs_tell_who_kept_a_result_why_and_in_spite_of_what(dear: Space) -> None:
    dear.run("keep", "data/fit.txt", "-m", "only faster")
    for command in ("why", "logs"):
        done = dear.run(command, "data/fit.txt")
        assert "kept by Ada <ada@example.org> on 20" in done and "only faster" in done, command
        assert "in spite of  code src/model.py:2" in done, command
    assert "kept by" not in dear.why("outputs/answer.txt")


def test_who_keeps_twice_is_recorded_twice(dear: Space) -> None:
    dear.run("keep", "data/fit.txt", "-m", "first")
    dear.write("src/model.py", FASTER.replace("range(rate)", "range(int(rate))"))
    dear.run("keep", "data/fit.txt", "-m", "second")
    said = dear.why("data/fit.txt").text
    assert said.index("second") < said.index("first")


def test_making_it_by_force_ends_the_record(dear: Space) -> None:
    dear.run("keep", "data/fit.txt")
    assert "no reason given" in dear.why("data/fit.txt")
    dear.build("-f", "data/fit.txt")
    assert dear.ran == ["data/fit.txt"] and "kept by" not in dear.why("data/fit.txt")


def test_a_changed_input_or_parameter_is_another_result_and_refused(dear: Space) -> None:
    dear.write("./raw.txt", "b\n")
    told(dear, "more than its code has changed", "raw.txt", "→", command=("keep", "data/fit.txt"))
    dear.write("./raw.txt", "a\n")
    dear.write("script.py", SCRIPT.replace("rate=1", "rate=2"))
    told(dear, "more than its code has changed", "parameter", "rate", command=("keep", "data/fit.txt"))
    dear.build("data/fit.txt")
    assert dear.ran == ["data/fit.txt"] and dear.read("data/fit.txt") == "a\na\n"


def test_a_missing_result_is_refused_and_an_edited_one_too(dear: Space) -> None:
    dear.path("data/fit.txt").write_text("mine\n")
    told(dear, "data/fit.txt", "edited", code=3, command=("keep", "data/fit.txt"))
    dear.path("data/fit.txt").unlink()
    told(dear, "not as they were made", "labmake restore", command=("keep", "data/fit.txt"))
    dear.run("restore", "data/fit.txt")
    dear.run("keep", "data/fit.txt")
    dear.build()
    assert dear.ran == []


def test_what_needs_a_result_that_would_run_is_kept_with_it_or_not_at_all(dear: Space) -> None:
    dear.write("script.py", SCRIPT.replace("cat {fit}", "cat < {fit}"))
    told(dear, "needs data/fit.txt", "labmake keep data/fit.txt outputs/answer.txt", command=("keep", "answer"))
    done = dear.run("keep", "answer", "fit")
    assert "kept data/fit.txt" in done and "kept outputs/answer.txt: text" in done
    dear.build()
    assert dear.ran == []


def test_what_is_up_to_date_was_never_made_or_lies_in_the_store_is_not_kept(dear: Space) -> None:
    dear.write("src/model.py", MODEL)
    assert "nothing to keep" in dear.run("keep", "data/fit.txt")
    dear.write("script.py", SCRIPT + 'rule("data/new.txt", run=sh("echo > {out}"))\n')
    told(dear, "was never made here", command=("keep", "data/new.txt"))
    dear.write("src/model.py", FASTER)
    dear.build()
    dear.write("src/model.py", MODEL)
    told(dear, "the store has a result already", command=("keep", "data/fit.txt"))


def test_a_kept_folder_that_the_store_has_lost_is_stored_again(space: Space) -> None:
    space.write("script.py", 'rule("models/m/", run=sh("mkdir -p {out}/a; echo 1 > {out}/a/x; echo 2 > {out}/y"))')
    space.build()
    space.write("script.py", 'rule("models/m/", run=sh("mkdir -p {out}/a && echo 1 > {out}/a/x; echo 2 > {out}/y"))')
    for segment in (space.root / ".git/labmake/store/segments").glob("*.seg"):
        segment.unlink()
    done = space.run("keep", "models/m/", code=None)
    if done.code == 0:  # the action's text is gone with the store: then nobody can say what changed
        space.build()
        assert space.ran == []
    else:
        assert "more than its code has changed" in done and "no longer has" in done


def test_a_result_that_was_made_again_by_force_stands_for_everybody(space: Space) -> None:
    """Also for a worktree whose facts know nothing of it: the trace of the new run supersedes the first."""
    space.write("script.py", f'rule("data/x.txt", run=sh("echo x >> {space.notes}; wc -l < {space.notes} > {{out}}"))')
    space.build()
    space.build("-f", "data/x.txt")
    assert space.read("data/x.txt").strip() == "2"
    space.path("data/x.txt").unlink()
    shutil.rmtree(space.root / ".git/labmake/state")
    space.build()
    assert space.restored == ["data/x.txt"] and space.read("data/x.txt").strip() == "2"

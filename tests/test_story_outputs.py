"""Outputs: several, named, folders, groups; how they are asked for, protected, put back and told about."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from space import Space

TWO = """
rule("a.txt", raw="./raw.txt", run=sh("cat {raw} > {out}"))
rule("b.txt", a="a.txt", run=sh("cat {a} {a} > {out}"))
rule("c.txt", run=sh("echo c > {out}"))
"""


@pytest.fixture
def two(space: Space) -> Space:
    """a.txt from a source, b.txt from a.txt, c.txt from nothing; built."""
    space.write("script.py", TWO)
    space.write("./raw.txt", "1\n")
    space.build()
    return space


# Shapes of outputs ---------------------------------------------------------------------------------------------------


def test_several_outputs_are_one_step_and_each_can_be_asked_for(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", "b.txt", run=sh("echo a > {out1}; echo b > {out2}"))')
    space.build("b.txt")
    assert space.ran == ["a.txt"] and space.files() == {"a.txt": "a\n", "b.txt": "b\n"}
    space.path("b.txt").unlink()
    space.build()
    assert space.ran == [] and space.read("b.txt") == "b\n"


def test_the_second_output_has_a_digest_of_its_own(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("a.txt", "b.txt", raw="./raw.txt", run=sh("cat {raw} > {out1}; echo b > {out2}"))
        rule("of_b.txt", b="b.txt", run=sh("cat {b} > {out}"))
        """,
    )
    space.write("./raw.txt", "1")
    space.build()
    space.write("./raw.txt", "2")
    space.build()
    assert space.ran == ["a.txt"] and space.read("of_b.txt") == "b\n"


def test_named_outputs_are_called_by_their_names(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule({"train": "data/train.csv", "test": "data/test.csv"}, raw="./raw.csv", run=py("src/split.py:split"))
        rule({"head": "{name}.head", "tail": "{name}.tail"}, rows="data/{name}.csv",
             run=sh("head -n 1 {rows} > {head}; tail -n 1 {rows} > {tail}"))
        rule("both.txt", tails=each("{name}.tail", name=["train", "test"]), run=sh("cat {tails} > {out}"))
        """,
    )
    space.write("./raw.csv", "x\n1\n2\n3\n")
    space.write(
        "src/split.py",
        """
        import pandas

        def split(raw: pandas.DataFrame, train, test):
            raw[:2].to_csv(train, index=False)
            raw[2:].to_csv(test, index=False)
        """,
    )
    space.build()
    assert space.read("data/train.csv") == "x\n1\n2\n" and space.read("both.txt") == "2\n3\n"
    assert space.ran == ["both.txt", "data/train.csv", "test.head", "train.head"]


def test_a_folder_target_holds_what_the_step_leaves_in_it(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("model/", n="./n.txt", run=sh("mkdir {out}sub; for i in $(seq `cat {n}`); do echo $i > {out}sub/$i; done"))
        rule("one.txt", one="model/sub/1", run=sh("cat {one} > {out}"))
        rule("all.txt", model="model/", run=sh("cat {model}sub/* > {out}"))
        """,
    )
    space.write("./n.txt", "3")
    space.build()
    assert space.read("all.txt") == "1\n2\n3\n" and space.read("one.txt") == "1\n"
    space.write("./n.txt", "2")
    space.build()
    assert space.ran == ["all.txt", "model/"] and not space.exists("model/sub/3")
    shutil.rmtree(space.path("model"))
    space.build("model/sub/2")
    assert space.ran == [] and sorted(os.listdir(space.path("model/sub"))) == ["1", "2"]


def test_a_file_that_others_left_in_a_folder_target_is_moved_aside_and_kept(space: Space) -> None:
    space.write("script.py", 'rule("model/", n="./n.txt", run=sh("cat {n} > {out}a.txt"))')
    space.write("./n.txt", "3")
    space.build()
    space.write("model/mine.txt", "dear")
    space.write("./n.txt", "4")
    space.build()
    assert space.files() == {"model/a.txt": "4"}
    kept = (space.root / ".git/labmake/aside").rglob("mine.txt*")
    assert [path.read_text() for path in kept] == ["dear"]


def test_a_wildcard_with_a_regular_expression_matches_only_that(space: Space) -> None:
    space.write(
        "script.py",
        r"""
        rule("x/{n:[0-9]+}.txt", run=sh("echo number {n} > {out}"))
        rule("x/{word:[a-z]{2,3}}.txt", run=sh("echo word {word} > {out}"))
        """,
    )
    space.build("x/12.txt", "x/abc.txt")
    assert space.read("x/12.txt") == "number 12\n" and space.read("x/abc.txt") == "word abc\n"
    assert "no rule makes x/abcd.txt" in space.build("x/abcd.txt", code=2)


def test_inputs_with_reserved_names_are_written_in_inputs(space: Space) -> None:
    space.write(
        "script.py",
        'rule("x.txt", inputs={"memory": "./memory.csv", "time": "./time.csv"}, run=sh("cat {memory} {time} > {out}"))',
    )
    space.write("./memory.csv", "m")
    space.write("./time.csv", "t")
    space.build()
    assert space.read("x.txt") == "mt"
    space.write("script.py", 'rule("x.txt", memory="./memory.csv", run=sh("cat {memory} > {out}"))')
    assert "inputs={'memory': …}" in space.build(code=2)


def test_inputs_may_be_lists_and_dicts_of_paths(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("{x}.txt", run=sh("echo {x} > {out}"))
        rule("list.txt", parts=["b.txt", "a.txt"], run=sh("cat {parts} > {out}; cat {parts.list} >> {out}"))
        rule("dict.json", parts={"first": "a.txt", "then": "b.txt"}, run=py("src/x.py:f"))
        """,
    )
    space.write("src/x.py", "def f(parts):\n    return {name: path.read_text() for name, path in parts.items()}\n")
    space.build()
    assert space.read("list.txt") == "b\na\nb.txt\na.txt\n"
    assert space.json("dict.json") == {"first": "a\n", "then": "b\n"}


def test_a_group_is_asked_for_by_name(two: Space) -> None:
    shutil.rmtree(two.root / "generated")
    two.write("script.py", TWO + 'group("paper", "a.txt", "c.txt")\n')
    two.build("paper")
    assert sorted(two.files()) == ["a.txt", "c.txt"]
    two.write("rules.py", f'group("talk", "generated/{two.experiment}/assets/b.txt")')
    two.build("talk")
    assert two.restored == ["b.txt"]


def test_rules_py_serves_every_experiment(space: Space) -> None:
    space.write(
        "rules.py",
        """
        rule("generated/{exp}/assets/{name}.count", raw="generated/{exp}/assets/{name}.txt",
             run=sh("wc -c < {raw} > {out}"))
        """,
    )
    space.write(
        "script.py",
        'rule("x.txt", run=sh("printf abc > {out}"))\nrule("y.txt", n="x.count", run=sh("cat {n} > {out}"))',
    )
    space.build()
    assert space.ran == ["x.count", "x.txt", "y.txt"] and space.read("y.txt") == "3\n"
    other = Space(space.root, "2026-02-03-Other")
    other.write("script.py", 'rule("x.txt", run=sh("printf abc > {out}"))')
    space.build(f"generated/{other.experiment}/assets/x.count")
    assert space.ran == [] and other.read("x.count") == "3\n"


def test_a_plan_of_rules_py_gets_the_experiment_for_its_paths(space: Space) -> None:
    space.write(
        "rules.py",
        """
        @plan("generated/{exp}/assets/total.txt")
        def total(exp):
            names = read_json(f"generated/{exp}/assets/names.json")
            return step(parts=[f"generated/{exp}/assets/{name}.txt" for name in names], words="./words.txt",
                        run=sh("cat {words} {parts} > {out}"))
        """,
    )
    space.write("/words.txt", "words\n")
    script = 'rule("{n:[0-9]}.txt", run=sh("echo {n} > {out}"))\nrule("names.json", run=sh("echo [1,2] > {out}"))\n'
    space.write("script.py", script)
    space.build()
    assert space.read("total.txt") == "words\n1\n2\n"
    Space(space.root, "2026-02-03-Other").write("script.py", script)
    space.build("-e", "Other")
    assert space.ran == []


def test_a_result_of_another_experiment_is_made_first(space: Space) -> None:
    other = Space(space.root, "2026-01-01-Base")
    other.write("script.py", 'rule("x.txt", run=sh("echo base > {out}"))')
    space.write(
        "script.py", f'rule("y.txt", x="/generated/{other.experiment}/assets/x.txt", run=sh("cat {{x}} > {{out}}"))'
    )
    space.build("-e", space.experiment)
    assert space.read("y.txt") == "base\n" and other.read("x.txt") == "base\n"


# In the targets' places ----------------------------------------------------------------------------------------------


def test_a_deleted_output_is_restored_and_not_run(two: Space) -> None:
    two.path("a.txt").unlink()
    two.build()
    assert two.ran == [] and two.restored == ["a.txt"] and two.read("a.txt") == "1\n"


def test_an_edited_output_is_kept_and_only_what_needs_it_waits(two: Space) -> None:
    two.write("a.txt", "mine\n")
    two.write("./raw.txt", "2\n")
    two.write("script.py", TWO.replace("echo c", "echo d"))
    done = two.build(code=3)
    assert "a.txt was edited" in done and "labmake restore a.txt" in done
    assert two.read("a.txt") == "mine\n" and two.read("b.txt") == "1\n1\n"
    assert two.ran == ["c.txt"]


def test_restore_puts_the_recorded_content_back_and_keeps_the_edit(two: Space) -> None:
    two.write("a.txt", "mine\n")
    two.build(code=3)
    two.run("restore", "a.txt")
    assert two.read("a.txt") == "1\n"
    assert "mine\n" in [path.read_text() for path in (two.root / ".git/labmake/aside").rglob("a.txt")]
    two.build()
    assert two.ran == []


def test_discarded_edits_are_set_aside_where_the_build_says(two: Space) -> None:
    two.write("a.txt", "mine\n")
    two.write("./raw.txt", "2\n")
    done = two.build("--discard-edits")
    assert two.ran == ["a.txt", "b.txt"] and two.read("a.txt") == "2\n"
    (line,) = [line for line in done.text.splitlines() if line.startswith("set aside")]
    with open(line.partition(" now ")[2]) as kept:
        assert kept.read() == "mine\n"


def test_an_edit_of_what_no_longer_exists_stays(two: Space) -> None:
    two.write("c.txt", "mine\n")
    two.write("script.py", TWO.partition('rule("c.txt"')[0])
    two.build()
    assert two.read("c.txt") == "mine\n"


def test_a_file_that_was_there_before_the_first_build_is_not_overwritten(space: Space) -> None:
    space.write("script.py", TWO)
    space.write("./raw.txt", "1\n")
    space.write("a.txt", "older than labmake\n")
    space.build(code=3)
    assert space.read("a.txt") == "older than labmake\n" and space.ran == ["c.txt"]


def test_an_output_that_was_edited_to_what_it_should_be_is_adopted(two: Space) -> None:
    two.write("script.py", TWO.replace("echo c", "echo d"))
    two.build()
    two.write("c.txt", "c\n")
    two.write("script.py", TWO)
    two.build()
    assert two.ran == [] and two.read("c.txt") == "c\n"


def test_clean_removes_what_the_store_can_bring_back(two: Space) -> None:
    two.write("c.txt", "mine\n")
    two.run("clean")
    assert two.files() == {"c.txt": "mine\n"}
    two.path("c.txt").unlink()
    two.build()
    assert two.ran == [] and two.restored == ["a.txt", "b.txt", "c.txt"]
    two.run("clean", "b.txt")
    assert sorted(two.files()) == ["a.txt", "c.txt"]


# What is asked and told ----------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(two: Space) -> None:
    two.write("./raw.txt", "2\n")
    two.path("c.txt").unlink()
    before = two.files()
    said = two.build("-n")
    assert "would run     a.txt" in said and "would restore c.txt" in said
    assert "then, maybe   b.txt   after a.txt" in said
    assert two.files() == before and two.ran == []
    two.build()
    assert two.ran == ["a.txt", "b.txt"] and two.restored == ["c.txt"]
    assert "0 would run, 0 from the store, 3 unchanged" in two.build("-n")


def test_a_dry_run_before_the_first_build_leaves_no_trace(space: Space) -> None:
    space.write("script.py", TWO)
    space.write("./raw.txt", "1\n")
    space.build("-n")
    assert space.files() == {}
    space.build()
    assert space.ran == ["a.txt", "b.txt", "c.txt"]


def test_status_tells_what_is_up_to_date_what_would_run_and_what_was_edited(two: Space) -> None:
    assert "3 up to date" in two.run("status")
    two.write("./raw.txt", "2\n")
    two.write("c.txt", "mine\n")
    said = two.run("status")
    assert "1 would run" in said and "1 edited" in said and "1 known after these have run" in said
    assert "./raw.txt changed" in said or "raw.txt changed" in said


def test_why_names_the_input_that_changed_also_from_further_down(two: Space) -> None:
    assert "up to date" in two.why("b.txt")
    two.write("./raw.txt", "2\n")
    said = two.why("b.txt")
    assert "b.txt is known only after a.txt" in said and "raw: raw.txt" in said and "→" in said


def test_why_tells_the_changed_command_and_the_new_input(two: Space) -> None:
    two.write(
        "script.py",
        TWO.replace(
            'raw="./raw.txt", run=sh("cat {raw}', 'raw="./raw.txt", more="./more.txt", run=sh("cat {raw} {more}'
        ),
    )
    two.write("./more.txt", "more\n")
    said = two.why("a.txt")
    assert "cat {raw} > {out}" in said and "cat {raw} {more} > {out}" in said and "more.txt" in said
    assert two.read("a.txt") == "1\n"


def test_failures_and_logs_show_what_a_step_said(space: Space) -> None:
    space.write(
        "script.py",
        'rule("a.txt", run=sh("echo loud and clear; touch {out}"))\nrule("b.txt", run=sh("echo sorry >&2; exit 7"))',
    )
    done = space.build(code=1)
    assert re.search(r"exit code +7", done.text) and "sorry" in done
    assert "sorry" in space.run("failures")
    assert space.run("logs", "a.txt").text == "loud and clear\n"
    assert space.run("logs", "b.txt").text == "sorry\n"
    space.write("script.py", 'rule("b.txt", run=sh("echo fine > {out}"))')
    space.build()
    assert "nothing failed" in space.run("failures")


def test_a_target_is_asked_for_by_stem_short_path_or_path_from_here(two: Space) -> None:
    two.write("script.py", TWO + 'rule("figures/plot1.svg", run=sh("echo svg > {out}"))\n')
    figures = two.path("figures")
    for words, folder in (
        (["plot1"], two.root),
        (["plot1.svg"], two.root),
        (["figures/plot1.svg"], two.root),
        (["build", f"generated/{two.experiment}/assets/figures/plot1.svg"], two.root),
        (["figures/plot1.svg"], two.root / "scripts" / two.experiment),
        (["plot1.svg"], figures),
    ):
        figures.mkdir(parents=True, exist_ok=True)
        two.path("figures/plot1.svg").unlink(missing_ok=True)
        two.run(*words, cwd=folder)
        assert two.read("figures/plot1.svg") == "svg\n", words


def test_a_stem_with_two_meanings_is_an_error_that_names_both(space: Space) -> None:
    space.write("script.py", 'rule("a/x.txt", run=sh("touch {out}"))\nrule("b/x.csv", run=sh("touch {out}"))')
    said = space.run("x", code=2)
    assert "x means several targets" in said and "a/x.txt" in said and "b/x.csv" in said


def test_labmake_alone_builds_the_experiment_and_default_false_is_left_out(space: Space) -> None:
    space.write("script.py", TWO + 'rule("dear.txt", default=False, run=sh("touch {out}"))\n')
    space.write("./raw.txt", "1\n")
    space.run()
    assert space.ran == ["a.txt", "b.txt", "c.txt"]
    space.run("dear")
    assert space.ran == ["dear.txt"]
    space.run()
    assert space.exists("dear.txt") and space.ran == []


def test_asking_for_a_file_runs_nothing_it_does_not_need(space: Space) -> None:
    space.write("script.py", TWO)
    space.write("./raw.txt", "1\n")
    broken = Space(space.root, "2026-09-09-Broken")
    broken.write("script.py", "this is no Python")
    space.build(f"generated/{space.experiment}/assets/a.txt")
    assert space.ran == ["a.txt"] and sorted(space.files()) == ["a.txt"]


def test_an_output_that_its_rule_no_longer_has_is_removed(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", "b.txt", run=sh("echo a > {out1}; echo b > {out2}"))')
    space.build()
    space.write("script.py", 'rule("a.txt", run=sh("echo a > {out}"))')
    space.build()
    assert list(space.files()) == ["a.txt"]


def test_it_is_removed_also_if_the_build_that_noticed_was_not_a_complete_one(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", "b.txt", run=sh("echo a > {out1}; echo b > {out2}"))')
    space.build()
    space.write("script.py", 'rule("a.txt", run=sh("echo a > {out}"))')
    space.build("a.txt")
    assert sorted(space.files()) == ["a.txt", "b.txt"]
    assert "removed   b.txt: it no longer exists" in space.build()
    assert list(space.files()) == ["a.txt"]
    space.build()
    assert "up to date" in space.last


def test_it_is_removed_also_if_the_other_output_stays_as_it_is(space: Space) -> None:
    one = 'rule("a.txt", run=sh("echo a > {out}"))'
    space.write("script.py", one)
    space.build()
    space.write("script.py", 'rule("a.txt", "b.txt", run=sh("echo a > {out1}; echo b > {out2}"))')
    space.build()
    space.write("script.py", one)
    space.build()
    assert space.ran == [] and list(space.files()) == ["a.txt"]


def test_outputs_in_another_order_are_the_same_files(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", "b.txt", run=sh("echo a > {out1}; echo b > {out2}"))')
    space.build()
    space.write("script.py", 'rule("b.txt", "a.txt", run=sh("echo b > {out1}; echo a > {out2}"))')
    space.build()
    assert space.files() == {"a.txt": "a\n", "b.txt": "b\n"}
    space.build()
    assert space.ran == []


LINKS = 'rule("m/", run=sh("mkdir {out}/sub; echo %s > {out}/sub/w; ln -s %s {out}/l"))\n'


def test_a_folder_with_a_link_is_unchanged_until_it_changes(space: Space) -> None:
    space.write("script.py", LINKS % ("1", "sub/w"))
    assert "it also wrote" not in space.build()
    space.build()
    assert space.ran == space.restored == []
    space.path("m/l").unlink()
    space.build()
    assert space.ran == [] and space.restored == ["m/"] and space.read("m/l") == "1\n"
    space.write("script.py", LINKS % ("2", "sub"))
    space.build()
    assert space.ran == ["m/"] and space.path("m/l").readlink() == Path("sub")
    space.path("m/l").unlink()
    space.path("m/l").symlink_to("/elsewhere")
    space.build(code=3)
    assert space.path("m/l").readlink() == Path("/elsewhere")
    space.run("restore", "m/")
    shutil.rmtree(space.root / ".git/labmake/state")
    space.build()
    assert space.ran == [] and space.path("m/l").readlink() == Path("sub")

"""Results of another experiment, named `EXPERIMENT:path`: made here from its script, whatever its name is."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space import Space

from labmake.errors import RuleError
from labmake.layout import expand, split_experiment

OTHER = "2026-01-01-Other"
THIRD = "2026-01-05-Third"


def other(space: Space, text: str, name: str = OTHER) -> None:
    """Write the script of another experiment."""
    space.write(f"/scripts/{name}/script.py", text)


FITS = """
    rule("data/folds.json", run=sh("echo '[1,2,3]' > {out}"))
    rule("data/fits/{fold}.txt", row="data/folds.json#{fold}", level="./level.txt", run=sh("cat {row} {level} > {out}"))
    """

COLLECT = f"""
    rule("data/all.txt", fits=each("{OTHER}:data/fits/{{fold}}.txt", fold="{OTHER}:data/folds.json"),
         run=sh("cat {{fits}} > {{out}}"))
    """


def two(space: Space) -> None:
    """An experiment that fits each fold, and this one, which collects the other's fits."""
    other(space, FITS)
    space.write(f"/scripts/{OTHER}/level.txt", "low\n")
    space.write("script.py", COLLECT)


def foreign(names: list[str]) -> list[str]:
    """Nodes as they are told, with those of another experiment shortened."""
    return sorted(name.rpartition("/assets/")[2] for name in names)


def test_a_collector_takes_as_many_results_of_another_experiment_as_there_are(space: Space) -> None:
    two(space)
    space.build("-e", "Story")
    assert foreign(space.ran) == [
        "data/all.txt",
        "data/fits/1.txt",
        "data/fits/2.txt",
        "data/fits/3.txt",
        "data/folds.json",
    ]
    assert space.read("data/all.txt") == "1\nlow\n2\nlow\n3\nlow\n"
    assert (space.root / "generated" / OTHER / "assets/data/fits/2.txt").read_text() == "2\nlow\n"
    assert "up to date" in space.build("-e", "Story")
    other(space, FITS.replace("[1,2,3]", "[1,2,3,4]"))
    space.build("-e", "Story")
    assert foreign(space.ran) == ["data/all.txt", "data/fits/4.txt", "data/folds.json"]


def test_a_change_over_there_reruns_what_depends_on_it_here(space: Space) -> None:
    two(space)
    space.build("-e", "Story")
    space.write(f"/scripts/{OTHER}/level.txt", "high\n")
    space.build("-e", "Story")
    assert space.read("data/all.txt") == "1\nhigh\n2\nhigh\n3\nhigh\n"
    assert "data/all.txt" in foreign(space.ran) and "data/folds.json" not in foreign(space.ran)


def test_what_was_made_there_is_not_made_again_here(space: Space) -> None:
    two(space)
    space.build("-e", "Other", "data/fits/1.txt", "data/fits/2.txt", "data/fits/3.txt")
    space.build("-e", "Story")
    assert space.ran == ["data/all.txt"]


def test_renaming_both_experiments_runs_nothing(space: Space) -> None:
    two(space)
    space.build("-e", "Story")
    for old, new in ((OTHER, "2026-03-01-Renamed"), (space.experiment, "2026-03-02-New")):
        os.rename(space.root / "scripts" / old, space.root / "scripts" / new)
    space.experiment = "2026-03-02-New"
    space.write("script.py", COLLECT.replace(OTHER, "2026-03-01-Renamed"))
    space.build("-e", "New")
    assert space.ran == [] and space.read("data/all.txt") == "1\nlow\n2\nlow\n3\nlow\n"


def test_a_step_sees_results_of_others_in_numbered_folders(space: Space) -> None:
    other(space, "rule('data/a.txt', run=sh('echo a > {out}'))\n")
    other(space, "rule('outputs/b.txt', run=sh('echo b > {out}'))\n", THIRD)
    space.write(f"/scripts/{THIRD}/notes.txt", "beside its script\n")
    space.write(
        "script.py",
        f"""
        rule("data/seen.txt", a="{OTHER}:data/a.txt", b="{THIRD}:outputs/b.txt",
             notes="{THIRD}:./notes.txt", run=sh("find of -name '*.txt' | sort > {{out}}; cat {{notes}} >> {{out}}"))
        """,
    )
    space.build("-e", "Story")
    assert space.read("data/seen.txt").splitlines() == [
        "of/1/data/a.txt",
        "of/2/notes.txt",
        "of/2/outputs/b.txt",
        "beside its script",
    ]


def test_plans_slices_and_folders_reach_into_another_experiment(space: Space) -> None:
    other(
        space,
        """
        rule("data/sizes.json", run=sh("echo '{\\"small\\": 1, \\"big\\": 9}' > {out}"))
        rule("parts/", run=sh("mkdir -p {out}; echo x > {out}/x.txt; echo y > {out}/y.txt"))
        """,
    )
    space.write(
        "script.py",
        f"""
        @plan("data/chosen.txt")
        def chosen():
            sizes = read_json("{OTHER}:data/sizes.json")
            parts = find("{OTHER}:parts/{{name}}.txt")
            return step(run=sh(f"echo {{max(sizes, key=sizes.get)}} {{' '.join(parts)}} > {{{{out}}}}"))

        rule("data/one.json", size="{OTHER}:data/sizes.json#small", run=sh("cp {{size}} {{out}}"))
        rule("data/parts.txt", parts=find("{OTHER}:parts/{{name}}.txt"), one="{OTHER}:parts/y.txt",
             run=sh("cat {{parts}} {{one}} > {{out}}"))
        """,
    )
    space.build("-e", "Story")
    assert space.files() == {"data/chosen.txt": "big x y\n", "data/one.json": "1\n", "data/parts.txt": "x\ny\ny\n"}


def test_all_experiments_of_a_list_are_collected(space: Space) -> None:
    for name, score in ((OTHER, 3), (THIRD, 5)):
        other(space, f"rule('data/score.txt', run=sh('echo {score} > {{out}}'))\n", name)
    space.write(
        "script.py",
        f"""
        rule("data/scores.txt", run=sh("cat {{scores}} > {{out}}"),
             scores=each("{{experiment}}:data/score.txt", experiment={[OTHER, THIRD]!r}))
        """,
    )
    space.build("-e", "Story")
    assert space.read("data/scores.txt") == "3\n5\n"


def test_the_script_of_an_experiment_that_nothing_names_is_not_read(space: Space) -> None:
    two(space)
    other(space, "this is no Python", THIRD)
    space.build("-e", "Story")
    space.write("script.py", "rule('data/x.txt', run=sh('echo > {out}'))\n")
    other(space, "this is no Python either")
    space.build("-e", "Story")
    assert "is no valid Python" in space.build(f"{OTHER}:data/folds.json", "-e", "Story", code=2)


def test_a_source_of_another_experiment_is_pinned_in_its_own_hashes(space: Space) -> None:
    (space.root / "raw.csv").write_text("1\n")
    other(space, "source('data/raw.csv', 'raw.csv')\n")
    space.write("script.py", f"rule('data/x.csv', raw='{OTHER}:data/raw.csv', run=sh('cp {{raw}} {{out}}'))\n")
    space.build("-e", "Story")
    assert "data/raw.csv" in (space.root / "scripts" / OTHER / "hashes.txt").read_text()
    assert not space.exists("hashes.txt")
    (space.root / "raw.csv").write_text("2\n")
    assert "are not what hashes.txt records" in space.build("-e", "Story", code=4)
    assert space.read("data/x.csv") == "1\n"


def test_on_the_command_line_a_target_of_another_experiment_is_made(space: Space) -> None:
    two(space)
    space.build(f"{OTHER}:data/fits/2.txt", "-e", "Story")
    assert foreign(space.ran) == ["data/fits/2.txt", "data/folds.json"]
    assert "up to date" in space.run("why", f"{OTHER}:data/fits/2.txt", "-e", "Story")


def test_an_unknown_experiment_is_an_error_that_lists_those_there_are(space: Space) -> None:
    two(space)
    space.write("script.py", 'rule("data/x.txt", a="2026-01-01-Othre:data/a.txt", run=sh("cp {a} {out}"))\n')
    for done in (
        space.build("-e", "Story", code=2),
        space.build("2026-01-01-Othre:data/a.txt", "-e", "Story", code=2),
    ):
        for words in ("there is no experiment 2026-01-01-Othre in this worktree", OTHER, "published", "check out"):
            assert words in done, done.text
    assert "script.py:3" in space.build("-e", "Story", code=2)


def test_an_output_in_another_experiment_is_refused(space: Space) -> None:
    two(space)
    space.write("script.py", f'rule("{OTHER}:data/x.txt", run=sh("echo > {{out}}"))\n')
    assert f"outside of generated/{space.experiment}/" in space.build("-e", "Story", code=2)


def test_two_experiments_that_need_each_other_are_a_cycle_shown_as_a_path(space: Space) -> None:
    other(space, f"rule('a.txt', b='{space.experiment}:b.txt', run=sh('cp {{b}} {{out}}'))\n")
    space.write("script.py", f"rule('b.txt', a='{OTHER}:a.txt', run=sh('cp {{a}} {{out}}'))\n")
    done = space.build("-e", "Story", code=2)
    assert "a target needs itself" in done and "→" in done


def test_a_default_build_removes_nothing_of_another_experiment(space: Space) -> None:
    two(space)
    space.build("-e", "Story")
    space.write("script.py", "rule('data/x.txt', run=sh('echo > {out}'))\n")
    space.build("-e", "Story")
    assert not space.exists("data/all.txt")
    assert (space.root / "generated" / OTHER / "assets/data/fits/2.txt").exists()


# Which colon names an experiment ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2026-A:data/x.csv", "generated/2026-A/assets/data/x.csv"),
        ("2026-A:outputs/x.pdf", "generated/2026-A/outputs/x.pdf"),
        ("2026-A:models/m/", "generated/2026-A/assets/models/m/"),
        ("2026-A:./x", "scripts/2026-A/x"),
        ("{e}:data/x.csv", "generated/{e}/assets/data/x.csv"),
        ("{e:[0-9]{4}.*}:data/x.csv", "generated/{e:[0-9]{4}.*}/assets/data/x.csv"),
        ("2026-A:b:c", "generated/2026-A/assets/b:c"),
        ("data/a:b", "generated/here/assets/data/a:b"),
        ("{n:[0-9]+}.json", "generated/here/assets/{n:[0-9]+}.json"),
        ("./a:b", "scripts/here/a:b"),
        (":a", "generated/here/assets/:a"),
        ("a:", "generated/here/assets/a:"),
        ("https://example.org/x", "generated/here/assets/https:/example.org/x"),
    ],
)
def test_a_colon_before_the_first_slash_and_outside_of_braces_ends_an_experiments_name(
    written: str, means: str
) -> None:
    assert expand(written, "here") == means


@given(st.text(alphabet="ab-2:./{}"), st.sampled_from(["", "here"]))
def test_a_path_of_another_experiment_never_means_a_file_of_this_one(rest: str, experiment: str) -> None:
    written = f"2026-A:{rest}"
    if split_experiment(written) is None:
        return
    try:
        path = expand(written, experiment)
    except RuleError:
        return
    assert path == expand(rest, "2026-A") or split_experiment(rest) is not None

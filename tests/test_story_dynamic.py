"""Dynamic pipelines: how many steps there are, and of which kind, is known once others have run."""

from __future__ import annotations

from space import Space

FANOUT = """
rule("data/folds.json", k="./k.txt", run=sh("seq -s, 1 $(cat {k}) | sed 's/.*/[&]/' > {out}"))
rule("data/fits/{fold}.txt", row="data/folds.json#{fold}", run=sh("echo fit $(cat {row}) > {out}"))
rule("data/all.txt", fits=each("data/fits/{fold}.txt", fold="data/folds.json"), run=sh("cat {fits} > {out}"))
"""


def test_one_rule_makes_as_many_targets_as_there_are_folds(space: Space) -> None:
    space.write("script.py", FANOUT)
    space.write("./k.txt", "3")
    space.build()
    assert space.read("data/all.txt") == "fit 1\nfit 2\nfit 3\n"
    space.build()
    assert space.ran == [] and "up to date" in space.last


def test_k_grows_by_one_and_one_step_and_the_collector_run(space: Space) -> None:
    space.write("script.py", FANOUT)
    space.write("./k.txt", "3")
    space.build()
    space.write("./k.txt", "4")
    space.build()
    assert space.ran == ["data/all.txt", "data/fits/4.txt", "data/folds.json"]


def test_k_shrinks_back_and_nothing_runs_and_stale_files_are_gone(space: Space) -> None:
    space.write("script.py", FANOUT)
    for k in ("3", "4", "3"):
        space.write("./k.txt", k)
        space.build()
    assert space.ran == []
    assert not space.exists("data/fits/4.txt")
    assert space.read("data/all.txt") == "fit 1\nfit 2\nfit 3\n"

"""`labmake rules` and `labmake graph`: what there is, and what is needed for what, as far as it is known."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from space import Space

from labmake.engine.graph import Box, Graph, dot, mermaid

SCRIPT = """
source("data/raw.csv", "src/raw.csv")
rule("data/folds.json", raw="data/raw.csv", run=sh("echo '[1,2,3]' > {out}"), description="three folds")
rule("data/fits/{fold}.txt", raw="data/raw.csv", rows="data/folds.json#{fold}", run=sh("cat {rows} > {out}"))
rule("data/all.txt", fits=each("data/fits/{fold}.txt", fold="data/folds.json"), run=py("src/model.py:collect"))
group("everything", "data/all.txt")

@plan("data/chosen.txt")
def choose():
    return step(one="data/fits/2.txt", run=sh("cp {one} {out}"))
"""


def edges(text: str) -> set[tuple[str, str]]:
    """The arrows of a Mermaid flowchart or DOT graph, by labels; also checks that each line is well formed."""
    labels: dict[str, str] = {}
    found = set()
    first, *lines = text.splitlines()
    assert first == "flowchart LR" or (first == "digraph labmake {" and lines.pop() == "}" and lines.pop(0))
    for line in lines:
        node = re.fullmatch(
            r'  (n\d+)(?: \[shape=\w+, label="((?:[^"\\]|\\.)*)"\];|\W{1,2}"([^"#]*(?:#\d+;[^"#]*)*)"\W{1,2})', line
        )
        arrow = re.fullmatch(r"  (n\d+) --?> (n\d+);?", line)
        if node is not None:
            name, dotted, mermaided = node.groups()
            label = dotted if dotted is not None else re.sub(r"#(\d+);", lambda m: chr(int(m[1])), mermaided)
            labels[name] = re.sub(r"\\(.)", r"\1", label) if dotted is not None else label
        else:
            assert arrow is not None, line
            found.add((labels[arrow[1]], labels[arrow[2]]))
    return found


def written(space: Space) -> Space:
    space.write("script.py", SCRIPT)
    space.write("src/raw.csv", "a\n1\n")
    space.write("src/model.py", "def collect(fits):\n    return ''.join(p.read_text() for p in fits.values())\n")
    return space


def test_every_rule_is_shown_with_recipe_description_and_place(space: Space) -> None:
    written(space).write("report.md", "# Report\n")
    shown = space.run("rules").text
    blocks = dict(block.split("\n", 1) for block in shown.split("\n\n") if "\n" in block)
    place = f"scripts/{space.experiment}/script.py"
    assert blocks["data/raw.csv"].split() == ["source", "src/raw.csv", f"{place}:3"]
    assert blocks["data/folds.json"].split("\n")[0].strip() == "three folds"
    assert "sh echo '[1,2,3]' > {out}" in blocks["data/folds.json"] and f"{place}:4" in blocks["data/folds.json"]
    assert "py src/model.py:collect" in blocks["data/all.txt"]
    assert "plan choose" in blocks["data/chosen.txt"]
    assert "document report.md" in blocks["outputs/report.pdf"] and "outputs/report.html" in blocks
    assert blocks["group everything"].strip() == "data/all.txt"
    assert "7 rules" in shown and not space.exists("data/raw.csv")


def test_rules_of_the_whole_project_are_shown_as_they_serve_the_experiment(space: Space) -> None:
    space.write("rules.py", 'rule("generated/{exp}/assets/data/x.txt", run=sh("echo x > {out}"))\n')
    space.write("script.py", "")
    shown = space.run("rules").text
    assert shown.startswith("data/x.txt\n") and "rules.py:3" in shown


def test_before_anything_is_made_the_graph_shows_what_rules_say_with_their_wildcards(space: Space) -> None:
    drawn = edges(written(space).run("graph", "data/all.txt").text)
    assert ("data/fits/{fold}.txt", "py src/model.py:collect") in drawn
    assert ("py src/model.py:collect", "data/all.txt") in drawn
    assert ("data/folds.json", "sh cat {rows} > {out}") in drawn
    assert ("sh cat {rows} > {out}", "data/fits/{fold}.txt") in drawn
    assert ("src/raw.csv", "source src/raw.csv") in drawn
    assert not any("chosen" in end for _, end in drawn)
    assert not space.exists("data/raw.csv")


def test_a_plan_that_has_not_decided_needs_nothing_yet_and_afterwards_what_it_chose(space: Space) -> None:
    before = edges(written(space).run("graph", "data/chosen.txt").text)
    assert before == {("plan choose", "data/chosen.txt")}
    space.build("data/chosen.txt")
    after = edges(space.run("graph", "data/chosen.txt").text)
    assert ("data/fits/2.txt", "plan choose") in after and ("data/folds.json", "sh cat {rows} > {out}") in after


def test_after_a_build_the_graph_shows_the_targets_that_there_are(space: Space) -> None:
    written(space).build("data/all.txt")
    drawn = edges(space.run("graph", "everything").text)
    assert {(f"data/fits/{fold}.txt", "py src/model.py:collect") for fold in (1, 2, 3)} <= drawn
    assert not any("{fold}" in start for start, _ in drawn)
    assert edges(space.run("graph", "everything", "--format", "dot").text) == drawn


def test_many_targets_of_one_rule_are_one_box_with_their_number(space: Space) -> None:
    space.write(
        "script.py",
        """
        rule("data/n.json", run=sh("seq 40 | paste -sd, | sed 's/.*/[&]/' > {out}"))
        rule("data/{n}.txt", n_="data/n.json#{n}", run=sh("cp {n_} {out}"))
        rule("data/all.txt", each_="data/n.json", ns=each("data/{n}.txt", n="data/n.json"), run=sh("cat {ns} > {out}"))
        """,
    )
    space.build("data/all.txt")
    drawn = edges(space.run("graph").text)
    assert ("data/{n}.txt (40)", "sh cat {ns} > {out}") in drawn and len(drawn) < 10


@given(st.lists(st.text(min_size=1).filter(lambda text: text.isprintable()), min_size=2, max_size=5, unique=True))
def test_any_name_is_escaped_so_that_the_graph_is_read_back_as_it_was(names: list[str]) -> None:
    drawn = Graph({name: Box("target", name) for name in names})
    for start, end in pairwise(names):
        drawn.arrow(start, end)
    wanted = set(pairwise(names))
    assert edges(mermaid(drawn)) == wanted
    assert edges(dot(drawn)) == wanted

"""Stories of a function's code: editing one reruns the steps that reach it and no others, and `why` names it."""

from __future__ import annotations

import pytest
from space import Space

SCRIPT = """
import pickle
from functools import lru_cache

import tools
from model import Model, prior

WINDOW = 3
COLOUR = "red"

rule("fit.txt", run=py("script.py:fit"))
rule("plot.txt", fit="fit.txt", run=py("script.py:plot"))
rule("whole.txt", run=py("script.py:whole", name="low"))


@rule("table.json", fit="fit.txt")
def table(fit: str):
    # A comment.
    return {"value": fit, "rows": rows()}


@lru_cache
def rows():
    return WINDOW * 2


def fit():
    return f"{prior(WINDOW)} {Model().scale}"


def plot(fit: str):
    '''Draw it.'''
    return COLOUR + fit


def whole(name):
    return str(getattr(tools, name)())
"""

MODEL = """
import math

BASE = 2


def prior(size):
    return size * BASE


def unused(size):
    return math.sqrt(size)


class Model:
    scale = 1
"""

TOOLS = """
def low():
    return 1


def high():
    return 2
"""

ALL = ["fit.txt", "plot.txt", "table.json", "whole.txt"]


@pytest.fixture
def made(space: Space) -> Space:
    """Four steps in one script, built."""
    space.write("script.py", SCRIPT)
    space.write("src/model.py", MODEL)
    space.write("src/tools.py", TOOLS)
    space.build()
    assert space.ran == ALL
    return space


def change(space: Space, name: str, before: str, after: str) -> None:
    """Replace a text that is once in a file."""
    text = space.read(name)
    assert text.count(before) == 1
    space.write(name, text.replace(before, after))


@pytest.mark.parametrize(
    ("name", "before", "after", "ran"),
    [
        ("script.py", "COLOUR + fit", "fit + COLOUR", ["plot.txt"]),
        ("script.py", '"red"', '"blue"', ["plot.txt"]),
        ("script.py", "WINDOW * 2", "WINDOW * 3", ["table.json"]),
        ("script.py", "WINDOW = 3", "WINDOW = 4", ["fit.txt", "plot.txt", "table.json"]),
        ("script.py", "# A comment.", "# Another, on\n    # two lines.", []),
        ("script.py", "'''Draw it.'''", "'''Draw it, in colour.'''", []),
        ("script.py", 'WINDOW = 3\nCOLOUR = "red"', 'COLOUR = "red"\nWINDOW = 3', []),
        ("script.py", "def fit():", "import json\n\n\ndef more():\n    return json\n\n\ndef fit():", []),
        ("script.py", 'name="low"', 'name="high"', ["whole.txt"]),
        ("script.py", "import tools\n", 'import tools\nprint("loaded")\n', ALL),
        ("src/model.py", "size * BASE", "size + BASE + 2", ["fit.txt", "plot.txt", "table.json"]),
        ("src/model.py", "BASE = 2", "BASE = 5", ["fit.txt", "plot.txt", "table.json"]),
        ("src/model.py", "math.sqrt(size)", "math.log(size)", []),
        ("src/model.py", "scale = 1", "scale = 4", ["fit.txt", "plot.txt", "table.json"]),
        ("src/model.py", "import math", "import math\n\nprint('set up')", ALL),
        ("src/tools.py", "return 2", "return 3", ["whole.txt"]),
        ("src/tools.py", "def high", "# high\ndef high", []),
    ],
)  # fmt: skip
def test_an_edit_reruns_the_steps_that_reach_it(
    made: Space, name: str, before: str, after: str, ran: list[str]
) -> None:
    change(made, name, before, after)
    made.build()
    assert made.ran == ran
    made.build()
    assert made.ran == []


def test_results_are_those_of_a_fresh_project(made: Space) -> None:
    change(made, "src/model.py", "size * BASE", "size + BASE + 2")
    change(made, "script.py", "WINDOW * 2", "WINDOW * 5")
    made.build()
    assert made.read("fit.txt") == "7 1" and made.json("table.json") == {"value": "7 1", "rows": 15}
    assert made.read("plot.txt") == "red7 1"


def test_why_names_the_function_its_line_and_what_reaches_it(made: Space) -> None:
    change(made, "src/model.py", "BASE = 2", "# The base.\nBASE = 5")
    told = made.why("fit.txt")
    assert "src/model.py:4 BASE changed, reached from fit through prior" in told
    assert "Model" not in told and "unused" not in told
    made.build()
    change(made, "script.py", "return COLOUR + fit", "shade = COLOUR\n    return shade + fit")
    assert "script.py:34 plot changed\n" in made.why("plot.txt")


def test_why_says_that_a_function_is_reached_now(made: Space) -> None:
    change(made, "script.py", "WINDOW * 2", "len(COLOUR)")
    told = made.why("table.json")
    assert "rows changed, reached from table" in told
    assert "COLOUR is reached now, reached from table through rows" in told
    assert "WINDOW is no longer reached" in told


def test_why_says_why_all_of_a_module_counts(made: Space) -> None:
    change(made, "src/tools.py", "return 2", "return 3")
    told = made.why("whole.txt")
    assert "src/tools.py:6 changed; all of the file counts: whole uses the module tools as a value" in told


def test_why_names_what_runs_when_a_file_is_imported(made: Space) -> None:
    change(made, "src/tools.py", "def high", "print('set up')\n\n\ndef high")
    assert "src/tools.py:5 print('set up') is reached now, which runs when the file is imported" in made.why("fit.txt")


def test_an_old_edit_that_reran_nothing_is_not_named(made: Space) -> None:
    change(made, "src/model.py", "math.sqrt(size)", "math.log(size)")
    made.build()
    change(made, "src/model.py", "scale = 1", "scale = 4")
    told = made.why("fit.txt")
    assert "src/model.py:15 Model changed, reached from fit" in told and "model.py:11" not in told


def test_a_step_that_unpickles_reruns_when_any_class_changes(space: Space) -> None:
    space.write(
        "script.py",
        """
        import pickle

        class Fit:
            slope = 1

        @rule("fit.pkl")
        def fit(out):
            out.write_bytes(pickle.dumps(Fit()))

        @rule("slope.txt", fit="fit.pkl")
        def slope(fit):
            return str(pickle.loads(fit.read_bytes()).slope)

        @rule("other.txt")
        def other():
            return "other"
        """,
    )
    space.build()
    change(space, "script.py", "slope = 1", "slope = 2")
    assert "unpickles" in space.why("slope.txt")
    space.build()
    assert space.read("slope.txt") == "2" and "other.txt" not in space.ran


def test_a_copied_experiment_has_the_same_actions(made: Space) -> None:
    old = made.root / "scripts" / made.experiment
    new = made.root / "scripts" / "2026-01-03-Copy"
    new.mkdir()
    (new / "script.py").write_text((old / "script.py").read_text())
    made.run("build", "-e", "2026-01-03-Copy")
    assert made.ran == []


def test_a_function_that_is_bound_out_of_sight_counts_with_all_of_its_file(space: Space) -> None:
    space.write("script.py", 'rule("a.txt", run=py("src/made.py:make"))\n')
    space.write("src/made.py", "def other():\n    return 'one'\n\nglobals()['make'] = lambda: 'a'\n")
    space.build()
    space.write("src/made.py", "def other():\n    return 'two'\n\nglobals()['make'] = lambda: 'a'\n")
    assert "all of the file counts" in space.why("a.txt")
    space.build()
    assert space.ran == ["a.txt"]

"""The program that runs a Python step: what a function gets, what becomes of its result, what an error looks like."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from labmake.executors import pystep

PROGRAM = Path(pystep.__file__)


@dataclass
class Folder:
    """A step folder with the program run in it."""

    root: Path

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    def run(self, file="script.py", function="step", outputs=None, environment=None, python=(), **step):
        recipe = {"kind": "function" if function else "python", "file": file, "function": function}
        scratch = self.root.parent / "scratch"
        scratch.mkdir(exist_ok=True)
        told = {"recipe": recipe, "outputs": outputs or {"out": "out.json"}, "scratch": str(scratch), **step}
        (self.root.parent / "step.json").write_text(json.dumps(told))
        variables = {**os.environ, "LABMAKE_STEP": str(self.root.parent / "step.json"), **(environment or {})}
        command = [sys.executable, *python, str(PROGRAM)]
        return subprocess.run(command, cwd=self.root, env=variables, capture_output=True, text=True)

    def read(self, name="out.json"):
        return json.loads((self.root / name).read_text())


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "step"
    root.mkdir()
    return Folder(root)


def good(result):
    assert result.returncode == 0, result.stderr
    return result


def bad(result, *words):
    assert result.returncode == 1
    for word in words:
        assert word in result.stderr
    return result.stderr


# What a function gets


def test_inputs_parameters_wildcards_outputs_and_scratch_come_by_name(folder):
    folder.write("data/raw.csv", "a\n1\n")
    folder.write(
        "script.py",
        """
        def step(raw, window, plot, out, scratch, missing="default"):
            assert scratch.is_dir()
            out.write_text(f'"{type(raw).__name__} {raw} {window} {plot} {out} {missing}"')
        """,
    )
    good(folder.run(inputs={"raw": "data/raw.csv"}, parameters={"window": 30}, wildcards={"plot": "roc"}))
    assert folder.read() == "PosixPath data/raw.csv 30 roc out.json default"


def test_inputs_are_loaded_as_annotated(folder):
    folder.write("t.csv", "a\n1\n2\n")
    folder.write("m.json", '{"auc": 0.5}')
    folder.write("n.txt", "hello")
    folder.write(
        "script.py",
        """
        import pandas
        import pathlib

        def step(t: pandas.DataFrame, m: dict, n: str, p: pathlib.Path):
            return [int(t["a"].sum()), m["auc"], n, str(p)]
        """,
    )
    good(folder.run(inputs={"t": "t.csv", "m": "m.json", "n": "n.txt", "p": "n.txt"}))
    assert folder.read() == [3, 0.5, "hello", "n.txt"]


def test_annotations_that_only_type_checkers_see_are_resolved_when_the_step_runs(folder):
    folder.write("t.csv", "a\n1\n2\n")
    folder.write(
        "script.py",
        """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import numpy as np
            import pandas as pd
            from nowhere import Model

        def step(t: pd.DataFrame, ts: "dict[str, pd.DataFrame | None]", m: Model):
            return [t["a"].sum(), ts["x"]["a"].sum(), str(m)]
        """,
    )
    good(folder.run(inputs={"t": "t.csv", "ts": {"x": "t.csv"}, "m": "t.csv"}))
    assert folder.read() == [3, 3, "t.csv"]


def test_lists_and_dicts_of_files_are_loaded_one_by_one_and_a_failed_one_is_none(folder):
    for name in "12":
        folder.write(f"{name}.json", f'{{"n": {name}}}')
    folder.write(
        "script.py",
        """
        def step(parts: list[dict], paths: list, fits: dict[str, dict], plain: dict):
            return [parts, [type(p).__name__ for p in paths], fits, {k: str(v) for k, v in plain.items()}]
        """,
    )
    inputs = {
        "parts": ["1.json", "2.json"],
        "paths": ["1.json"],
        "fits": {"1": "1.json", "2": None},
        "plain": {"x": "1.json"},
    }
    good(folder.run(inputs=inputs, each={"fits": ["fold"]}))
    assert folder.read() == [[{"n": 1}, {"n": 2}], ["PosixPath"], {"1": {"n": 1}, "2": None}, {"x": "1.json"}]


def test_several_wildcards_of_an_each_give_tuples_in_their_order(folder):
    folder.write("1.json", "[1]")
    folder.write(
        "script.py",
        """
        def step(grid: dict[tuple[str, str], list]):
            return [[list(key), value] for key, value in grid.items()]
        """,
    )
    records = [{"b": "1", "a": "x", "path": "1.json"}, {"b": "2", "a": "x", "path": None}]
    good(folder.run(inputs={"grid": records}, each={"grid": ["a", "b"]}))
    assert folder.read() == [[["x", "1"], [1]], [["x", "2"], None]]


def test_one_table_cannot_be_asked_of_several_files(folder):
    folder.write("script.py", "import pandas\ndef step(fits: pandas.DataFrame): ...")
    bad(folder.run(inputs={"fits": {"1": "1.csv"}}), "fits is a dict of files", "dict[str, pandas.DataFrame]")


def test_a_wildcard_is_a_number_if_annotated_so(folder):
    folder.write("script.py", "def step(n: int, x: float, s): return [n, x, s]")
    good(folder.run(wildcards={"n": "07", "x": "1e3", "s": "07", "unnamed": "y"}))
    assert folder.read() == [7, 1000.0, "07"]
    bad(folder.run(wildcards={"n": "a", "x": "1", "s": ""}), "the wildcard n is no int", "script.py:step")


def test_rest_receives_the_inputs_and_parameters_that_are_left(folder):
    folder.write("script.py", "def step(a, /, *, b, **rest): return [str(a), b, sorted(rest)]")
    good(folder.run(inputs={"a": "x", "i": "y"}, parameters={"b": 1, "p": 2}, wildcards={"w": "z"}))
    assert folder.read() == ["x", 1, ["i", "p"]]


def test_a_dotted_name_reaches_a_static_method(folder):
    folder.write("script.py", "class Fit:\n    @staticmethod\n    def run(p): return p")
    good(folder.run(function="Fit.run", parameters={"p": {"deep": [1]}}))
    assert folder.read() == {"deep": [1]}


def test_a_parameter_that_nothing_provides_is_told_with_what_there_is(folder):
    folder.write("script.py", "def step(raw, windw): ...")
    text = bad(folder.run(inputs={"raw": "x"}, parameters={"window": 3}, wildcards={"plot": "a"}), "takes windw")
    assert "did you mean window?" in text
    assert "inputs      raw\n" in text and "wildcards   plot\n" in text
    assert "Traceback" not in text


def test_an_input_or_parameter_that_the_function_ignores_is_an_error(folder):
    folder.write("script.py", "def step(raw): ...")
    bad(folder.run(inputs={"raw": "x", "more": "y"}, parameters={"p": 1}), "does not take more, p", "**rest")


def test_a_missing_function_is_told_with_those_there_are(folder):
    folder.write("script.py", "def fit(): ...\ndef _hidden(): ...")
    text = bad(folder.run(), "script.py has no function step", "fit")
    assert "_hidden" not in text


def test_an_input_that_cannot_be_loaded_is_told_without_a_traceback(folder):
    folder.write("x.json", "{")
    folder.write("script.py", "def step(x: dict): ...")
    assert "Traceback" not in bad(folder.run(inputs={"x": "x.json"}), "x.json is not JSON", "x.json:1")


# What becomes of the result


def test_a_returned_table_is_written_in_the_targets_format(folder):
    folder.write("script.py", "import pandas\ndef step(): return pandas.DataFrame({'a': [1]})")
    good(folder.run(outputs={"out": "out.csv"}))
    assert (folder.root / "out.csv").read_text() == "a\n1\n"


def test_a_returned_figure_is_drawn_without_a_display(folder):
    folder.write(
        "script.py",
        """
        from matplotlib import pyplot
        def step():
            figure, axes = pyplot.subplots()
            axes.plot([1, 2])
            return figure
        """,
    )
    good(folder.run(outputs={"out": "out.svg"}, environment={"DISPLAY": ""}))
    assert "<svg" in (folder.root / "out.svg").read_text()


def test_several_named_outputs_take_a_dict_and_are_paths_by_name(folder):
    folder.write(
        "script.py",
        """
        def step(out, model):
            assert out == {"table": out["table"], "model": model}
            model.write_text("m")
            return {"table": {"a": 1}}
        """,
    )
    good(folder.run(outputs={"table": "t.json", "model": "m.txt"}))
    assert folder.read("t.json") == {"a": 1} and (folder.root / "m.txt").read_text() == "m"


def test_several_unnamed_outputs_take_a_tuple_and_are_a_tuple(folder):
    folder.write("script.py", "def step(out, out2): assert out[1] == out2; return [1], 'text'")
    good(folder.run(outputs={"out1": "a.json", "out2": "b.txt"}))
    assert folder.read("a.json") == [1] and (folder.root / "b.txt").read_text() == "text"


def test_a_folder_is_made_and_written_through_out(folder):
    folder.write("script.py", "def step(out): (out / 'm.txt').write_text('m'); return out")
    good(folder.run(outputs={"out": "models/1/"}))
    assert (folder.root / "models/1/m.txt").read_text() == "m"
    folder.write("script.py", "def step(): return 3")
    bad(folder.run(outputs={"out": "models/2/"}), "a value for a folder", "models/2/")


def test_a_function_that_changes_the_directory_still_gets_its_result_written(folder):
    folder.write("script.py", "import os\ndef step(scratch): os.chdir(scratch); return 1")
    good(folder.run())
    assert folder.read() == 1


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("pass", "returned nothing and wrote nothing"),
        ("out.write_text('1'); return 1", "wrote its output and returned something too"),
        ("import pathlib; return pathlib.Path('other')", "a path that is not its output"),
        ("return {1, 2}", "an object of type set cannot be written to a .json file"),
        ("return [1, {2}]", "set cannot be written as JSON"),
    ],
)
def test_a_result_that_says_two_things_or_none_is_an_error(folder, body, told):
    folder.write("script.py", f"def step(out): {body}")
    assert "Traceback" not in bad(folder.run(), told)


@pytest.mark.parametrize("value", ["1", "(1,)", "{'a': 1, 'c': 1}", "{'a': 1}"])
def test_a_result_that_does_not_fit_several_outputs_is_an_error(folder, value):
    folder.write("script.py", f"def step(): return {value}")
    bad(folder.run(outputs={"a": "a.json", "b": "b.json"}), "output")
    assert not (folder.root / "a.json").exists()


def test_a_figure_for_a_csv_is_told_where_it_goes(folder):
    folder.write("script.py", "from matplotlib.figure import Figure\ndef step(): return Figure()")
    bad(folder.run(outputs={"out": "x.csv"}), "a figure cannot be written to a .csv file", ".svg")


# Modules


def test_modules_come_from_the_recipes_folder_then_src_then_the_root(folder):
    for place in ("src/deep", "src", "."):
        folder.write(f"{place}/which.py", f"name = {place!r}")
    folder.write("src/only.py", "name = 'src'")
    folder.write("top.py", "name = 'root'")
    folder.write("src/deep/fit.py", "import only, top, which\ndef step(): return [which.name, only.name, top.name]")
    good(folder.run(file="src/deep/fit.py"))
    assert folder.read() == ["src/deep", "src", "root"]


def test_the_modules_beside_the_program_cannot_be_imported_and_labmake_can(folder):
    folder.write(
        "script.py",
        """
        import importlib.util
        import labmake.errors
        def step(): return [importlib.util.find_spec(name) is None for name in ("pystep", "pycall")]
        """,
    )
    good(folder.run())
    assert folder.read() == [True, True]


def test_labmake_comes_last_if_it_is_not_installed(folder):
    folder.write("script.py", "import sys, labmake.errors\ndef step(): return sys.path[-1:]")
    good(folder.run(python=["-I", "-S"]))
    assert folder.read() == [str(PROGRAM.parents[2])]


def test_the_file_is_a_module_of_its_own_name_so_that_pickle_and_dataclasses_work(folder):
    folder.write(
        "script.py",
        """
        import pickle
        from dataclasses import dataclass

        @dataclass
        class Point:
            x: int

        def step():
            import script
            copy = pickle.loads(pickle.dumps(Point(3)))
            return [__name__, script.Point is Point, copy.x, __file__]
        """,
    )
    good(folder.run())
    assert folder.read() == ["script", True, 3, str(folder.root / "script.py")]


def test_worker_processes_find_the_functions_of_the_file(folder):
    folder.write(
        "script.py",
        """
        import multiprocessing
        def double(x): return 2 * x
        def step():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                return pool.map(double, [1, 2])
        """,
    )
    good(folder.run())
    assert folder.read() == [2, 4]


def test_pickled_functions_do_not_name_the_step_folder(folder):
    folder.write("script.py", "def step(): return [step.__code__.co_filename]")
    good(folder.run())
    assert folder.read() == ["script.py"]


# Seeds


def test_random_numbers_are_those_of_the_seed(folder):
    folder.write(
        "script.py",
        """
        import random
        import numpy
        def step(): return [random.random(), numpy.random.rand()]
        """,
    )
    results = []
    for seed in ("1", "1", str(2**32 - 1)):
        good(folder.run(environment={"LABMAKE_SEED": seed}))
        results.append(folder.read())
        (folder.root / "out.json").unlink()
    assert results[0] == results[1]
    assert results[0][0] != results[2][0] and results[0][1] != results[2][1]


def test_numpy_is_seeded_when_it_is_imported_late(folder):
    folder.write("script.py", "import numpy\ndef step(): return numpy.random.rand()\n")
    folder.write("late.py", "def step():\n    from numpy.random import rand\n    return rand()\n")
    folder.write("src/run.py", "import numpy, pathlib\npathlib.Path('out.json').write_text(str(numpy.random.rand()))\n")
    results = []
    for recipe in (
        {"kind": "function", "file": "script.py", "function": "step"},
        {"kind": "function", "file": "late.py", "function": "step"},
        {"kind": "python", "file": "src/run.py", "function": ""},
    ):
        good(folder.run(recipe=recipe, environment={"LABMAKE_SEED": "7"}))
        results.append(folder.read())
        (folder.root / "out.json").unlink()
    assert results[0] == results[1] == results[2]


# Scripts


def test_a_script_runs_as_main_with_names_and_paths_as_arguments(folder):
    folder.write(
        "src/fit.py",
        """
        import json, sys, pickle, helper
        class Point: ...
        pickle.loads(pickle.dumps(Point()))
        assert __name__ == "__main__"
        out = dict(argument.split("=", 1) for argument in sys.argv[1:])["out"]
        json.dump([sys.argv, __file__], open(out, "w"))
        """,
    )
    folder.write("src/helper.py", "")
    inputs = {"raw": "raw.csv", "parts": ["a", "b"], "fits": {"1": "c", "2": None}, "grid": [{"k": "1", "path": "d"}]}
    good(folder.run("src/fit.py", "", inputs=inputs, parameters={"n": 3, "s": "x y", "l": [1], "t": True}))
    arguments = ["raw=raw.csv", "parts=a", "parts=b", "fits=c", "grid=d", "n=3", "s=x y", "l=[1]", "t=true"]
    assert folder.read() == [["src/fit.py", *arguments, "out=out.json"], str(folder.root / "src/fit.py")]


# Errors


def test_a_traceback_shows_the_users_frames_with_paths_in_the_step_folder(folder):
    folder.write("src/helper.py", "def divide(x):\n    return x / 0\n")
    folder.write("script.py", "import helper\ndef step():\n    print('before')\n    return helper.divide(1)\n")
    result = folder.run()
    text = bad(result, "ZeroDivisionError: division by zero")
    files = [line.strip() for line in text.splitlines() if line.lstrip().startswith("File ")]
    assert files == ['File "script.py", line 4, in step', 'File "src/helper.py", line 2, in divide']
    assert "return helper.divide(1)" in text and str(folder.root) not in text
    assert result.stdout == "before\n"


def test_a_traceback_of_a_script_and_of_causes_is_as_short(folder):
    folder.write("fit.py", "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('x') from e\n")
    text = bad(folder.run("fit.py", ""), "direct cause", "ValueError: x")
    assert text.count("File ") == 2 and "pystep" not in text


def test_a_syntax_error_is_shown_with_its_line(folder):
    folder.write("script.py", "def step(:\n")
    text = bad(folder.run(), "SyntaxError", 'File "script.py", line 1')
    assert "pystep" not in text


def test_a_missing_module_gets_a_hint(folder):
    folder.write("script.py", "import pathlib, absent.part\ndef step(): ...")
    bad(folder.run(), "No module named 'absent'", "hint: ", 'code=["src/absent.py"]')


@pytest.mark.parametrize("name", ["'data/raw.csv'", "pathlib.Path(__file__).parent / 'data/raw.csv'"])
def test_a_missing_file_of_the_project_gets_a_hint(folder, name):
    folder.write("script.py", f"import pathlib\ndef step(): open({name})")
    bad(folder.run(), "FileNotFoundError", "name data/raw.csv as an input of the rule")


@pytest.mark.parametrize("call", ["open('/absent/x')", "__import__('subprocess').run(['absent-program'])", "1 / 0"])
def test_what_no_rule_could_have_named_gets_no_hint(folder, call):
    folder.write("script.py", f"def step(): {call}")
    assert "hint" not in bad(folder.run(), "Error")


@pytest.mark.parametrize(("value", "code"), [("", 0), ("0", 0), ("3", 3), ("256", 1), ("'stopped'", 1)])
def test_the_exit_code_of_the_step_is_honoured(folder, value, code):
    folder.write("script.py", f"import sys\ndef step(): sys.exit({value})")
    result = folder.run()
    assert result.returncode == code
    assert ("stopped" in result.stderr) == (value == "'stopped'")

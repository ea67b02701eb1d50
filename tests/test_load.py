"""`labmake.load`: a target is built and handed over as a value, in a REPL, a notebook or a one-off script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from space import EXPERIMENT, Done, Space, wait_until
from terminal import Terminal

SCRIPT = """
rule("data/raw.txt", run=sh("echo 4 > {out}"))
rule("data/results.csv", raw="data/raw.txt", run=sh("printf 'a,b\\\\n1,x\\\\n2,y\\\\n' > {out}"))
rule("data/folds.json", run=sh("echo '[1, 2]' > {out}"))
rule("data/arrays.npy", run=py("script.py:arrays"))
rule("models/{n}/", run=sh("echo '{{x}}' > {out}metrics.json; echo 3 > {out}n.json"))
rule("figures/plot.svg", run=sh("echo '<svg/>' > {out}"))
rule("data/bad.txt", run=sh("echo no such thing >&2; exit 3"))
rule("data/after.txt", bad="data/bad.txt", run=sh("cp {bad} {out}"))
rule("data/wrong.json", run=sh("echo nonsense > {out}"))
group("both", "data/raw.txt", "data/folds.json")

def arrays():
    import numpy
    return numpy.arange(3)
"""


@pytest.fixture
def written(space: Space) -> Space:
    space.write("script.py", SCRIPT)
    return space


def python(space: Space, text: str, cwd: Path | None = None, code: int = 0, **env: str) -> Done:
    """Run Python with labmake imported; the exit code, and what it printed (stdout first)."""
    done = subprocess.run(
        [sys.executable, "-c", f"import labmake\n{text}"],
        cwd=cwd or space.root,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return Done(done.returncode, done.stdout + "---\n" + done.stderr)


def test_a_table_is_built_and_loaded_with_progress_on_stderr(written: Space) -> None:
    done = python(written, "table = labmake.load('data/results.csv'); print(type(table).__name__, table.a.sum())")
    out, err = done.text.split("---\n")
    assert out == "DataFrame 3\n"
    assert [line.split()[:2] for line in err.splitlines()] == [["made", "data/raw.txt"], ["made", "data/results.csv"]]
    assert python(written, "print(labmake.load('results').shape)").text == "(2, 2)\n---\n"


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        ("load('data/folds.json')", "[1, 2]"),
        ("load('raw')", "'4\\n'"),
        ("load('data/arrays.npy').tolist()", "[0, 1, 2]"),
        ("load('models/7/').name", "'7'"),
        ("load('models/7/n.json')", "3"),
        ("load('figures/plot.svg').read_text()", "'<svg/>\\n'"),
        ("load('results', dict if 0 else list)", "[{'a': '1', 'b': 'x'}, {'a': '2', 'b': 'y'}]"),
        ("load('results', 'polars.DataFrame').shape", "(2, 2)"),
        ("load('folds', bytes)", "b'[1, 2]\\n'"),
        ("load('folds', pathlib.Path).suffix", "'.json'"),
        ("load(pathlib.Path('data') / 'folds.json')", "[1, 2]"),
    ],
)
def test_what_is_loaded_follows_from_the_suffix_or_from_what_is_asked_for(
    written: Space, call: str, printed: str
) -> None:
    assert python(written, f"import pathlib; print(repr(labmake.{call}))").text.startswith(printed + "\n")


def test_the_experiment_is_that_of_the_folder_of_the_branch_or_the_named_one(written: Space) -> None:
    other = "2026-02-03-Other"
    folder = written.root / "scripts" / other
    folder.mkdir()
    text = 'from labmake import rule, sh\nrule("data/folds.json", run=sh("echo 9 > {out}"))\n'
    (folder / "script.py").write_text(text)
    one = "print(labmake.load('data/folds.json'))"
    assert python(written, one, cwd=folder).text.startswith("9\n")
    assert python(written, one, cwd=written.root / "scripts" / EXPERIMENT).text.startswith("[1, 2]\n")
    assert python(written, f"print(labmake.load('data/folds.json', experiment='{other}'))").text.startswith("9\n")
    assert "not clear which experiment" in python(written, one, code=1)
    written.git("checkout", "-q", "-b", other)
    assert python(written, one).text.startswith("9\n")


def raised(space: Space, call: str, **env: str) -> str:
    """The error's class and its three parts."""
    text = f"""
try:
    {call}
except labmake.errors.LabmakeError as error:
    print(type(error).__name__, error.code, error)
"""
    return python(space, f"import labmake.errors\n{text}", **env).text


def test_a_failed_step_is_an_exception_in_three_parts(written: Space) -> None:
    text = raised(written, "labmake.load('data/after.txt')")
    out, err = text.split("---\n")
    assert out.startswith("StepFailed 1 data/bad.txt: the step failed")
    assert "at         scripts/2026-01-02-Story/script.py:9" in out and "no such thing" in out and "→" in out
    assert err == ""


@pytest.mark.parametrize(
    ("call", "told"),
    [
        ("load('nothing')", "Misuse 2 no rule makes nothing"),
        ("load('')", "Misuse 2 no rule makes ''"),
        ("load('scripts/2026-01-02-Story/script.py')", "Misuse 2 scripts/2026-01-02-Story/script.py is a source file"),
        ("load('both')", "Misuse 2 both means several targets"),
        ("load('raw', experiment='none')", "Misuse 2 no experiment is called none"),
        ("load('--force')", "Misuse 2 no rule makes --force"),
        ("load('wrong')", "RuleError 2 "),
        ("load('results', 'numpy.ndarray')", "RuleError 2 "),
    ],
)
def test_mistakes_are_exceptions_in_three_parts(written: Space, call: str, told: str) -> None:
    text = raised(written, f"labmake.{call}")
    assert text.startswith(told) and "error: " not in text and "Traceback" not in text


def test_an_edited_result_and_a_folder_without_project(written: Space, tmp_path: Path) -> None:
    written.build("raw")
    written.write("data/raw.txt", "mine\n")
    assert raised(written, "labmake.load('raw')").startswith("Edited 3")
    (tmp_path / "away").mkdir()
    text = "import labmake.errors\ntry: labmake.load('x')\nexcept labmake.errors.Misuse as e: print(e.what)"
    assert "no labmake project" in python(written, text, cwd=tmp_path / "away")


def test_in_a_step_it_is_refused(space: Space) -> None:
    space.write("script.py", 'import labmake\nfrom labmake import rule, py\nrule("a.json", run=py("script.py:make"))\n')
    with space.path("script.py").open("a") as file:
        file.write("def make(): return labmake.load('b.json')\n")
    done = space.build(code=1)
    assert "labmake.load was called in a step" in done and "name the target as an input" in done


def test_while_rules_are_read_and_in_a_plan_it_is_refused(space: Space) -> None:
    text = "import labmake\nfrom labmake import plan, rule, sh, step\nrule('b.json', run=sh('echo 1 > {out}'))\n"
    space.write("script.py", text + "labmake.load('b.json')\n")
    done = space.build(code=2)
    assert "labmake.load was called while rules are read" in done and "read_json" in done and "script.py:4" in done
    space.write("script.py", text + "@plan('a.json')\ndef a():\n    labmake.load('b.json')\n")
    assert "labmake.load was called while rules are read" in space.build("a.json", code=2)


def test_a_one_off_script_loads(written: Space) -> None:
    written.write("/look.py", "import labmake\nprint(len(labmake.load('results')))\n")
    assert written.run("run", "look.py").text.startswith("2\n")


def test_in_a_repl(written: Space) -> None:
    terminal = Terminal(written, program=[sys.executable, "-q"])
    terminal.until(lambda text: text.endswith(">>>"))
    terminal.type("import labmake\r")
    terminal.type("labmake.load('data/folds.json')\r")
    terminal.until(lambda text: text.endswith("[1, 2]\n>>>"))
    assert "made      data/folds.json" in terminal.text
    terminal.type("labmake.load('data/bad.txt')\r")
    terminal.until(lambda text: "StepFailed: data/bad.txt: the step failed" in text and text.endswith(">>>"))
    terminal.type("exit()\r")
    terminal.end()


def test_ctrl_c_twice_stops_the_build_and_the_repl_goes_on(space: Space) -> None:
    space.write("script.py", f'rule("data/slow.txt", run=sh("echo on >> {space.notes}; sleep 600"))')
    terminal = Terminal(space, program=[sys.executable, "-q"])
    terminal.until(lambda text: text.endswith(">>>"))
    terminal.type("import labmake\r")
    terminal.type("labmake.load('data/slow.txt')\r")
    wait_until(space.noted)
    terminal.type("\x03")
    terminal.until(lambda text: "again to stop them now" in text)
    terminal.type("\x03")
    terminal.until(lambda text: text.endswith("KeyboardInterrupt\n>>>"))
    terminal.type("1 + 1\r")
    terminal.until(lambda text: text.endswith("2\n>>>"))
    terminal.type("exit()\r")
    terminal.end()


def test_a_build_that_is_killed_is_told(space: Space) -> None:
    space.write("script.py", f'rule("data/slow.txt", run=sh("echo $PPID >> {space.notes}; sleep 600"))')
    text = "import labmake\nlabmake.load('data/slow.txt')"
    caller = subprocess.Popen([sys.executable, "-c", text], cwd=space.root, stderr=subprocess.PIPE, text=True)
    wait_until(space.noted)
    worker = int(space.noted()[0])
    status = Path(f"/proc/{worker}/status").read_text()
    coordinator = int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))
    os.kill(coordinator, signal.SIGKILL)
    _, said = caller.communicate(timeout=120)
    assert "the build ended before it was done" in said and caller.returncode == 1


def test_naming_load_in_a_script_costs_its_steps_nothing(space: Space) -> None:
    text = (
        "import sys\nfrom labmake import load\nprint([m for m in sys.modules if m.startswith(('click', 'subprocess'))])"
    )
    assert python(space, text).text.startswith("[]\n")


def test_in_a_notebook(written: Space) -> None:
    pytest.importorskip("ipykernel")
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(cwd=str(written.root))
    try:
        shown: list[str] = []

        def hear(message: dict[str, dict[str, object]]) -> None:
            content = message["content"]
            shown.append(str(content.get("text") or content.get("data") or content.get("evalue") or ""))

        client.execute_interactive("import labmake; labmake.load('data/folds.json')", output_hook=hear, timeout=120)
        assert any("made      data/folds.json" in one for one in shown) and any("[1, 2]" in one for one in shown)
        client.execute_interactive("labmake.load('data/bad.txt')", output_hook=hear, timeout=120)
        assert any("data/bad.txt: the step failed" in one for one in shown)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)

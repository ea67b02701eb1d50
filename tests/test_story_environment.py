"""Stories about software: which steps run again when something is installed, upgraded or removed."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import sys
import time
import venv
from dataclasses import replace
from pathlib import Path

import pytest
from site_packages import Site
from space import Space, wait_until

from labmake.engine.nodes import fact_text, parse_fact
from labmake.environment.code_files import Closure, CodeReader
from labmake.environment.environments import BUILT_IN, Environments
from labmake.model import digest_of
from labmake.store.live import view
from labmake.store.state import State


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A folder for packages on the path of labmake and its steps."""
    made = Site(tmp_path / "site-packages")
    made.folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(made.folder))
    return made


PLOTS = """
rule("data/a.txt", run=py("src/tables.py:table"))
rule("figures/a.txt", table="data/a.txt", run=py("src/plots.py:plot"))
rule("data/c.txt", run=sh("echo shell > {out}"))
"""


def test_an_upgrade_reruns_the_steps_that_import_it_and_no_others(space: Space, site: Site) -> None:
    site.install("plotlib", "1.0", {"plotlib/__init__.py": "VERSION = '1.0'"})
    site.install("numlib", "2.1.0", {"numlib.py": "VERSION = '2.1.0'"})
    space.write("script.py", PLOTS)
    space.write("src/tables.py", "import numlib\ndef table(): return numlib.VERSION")
    space.write("src/plots.py", "import plotlib\ndef plot(table: str): return plotlib.VERSION + table")
    space.build()
    assert space.ran == ["data/a.txt", "data/c.txt", "figures/a.txt"]
    site.install("plotlib", "1.1", {"plotlib/__init__.py": "VERSION = '1.1'"})
    assert "environment  plotlib 1.0 → 1.1" in space.why("figures/a.txt")
    space.build()
    assert space.ran == ["figures/a.txt"] and space.read("figures/a.txt") == "1.12.1.0"
    site.install("ruff", "0.6", {"ruff/__init__.py": ""})
    space.build()
    assert space.ran == []
    site.remove("plotlib")
    site.install("plotlib", "1.0", {"plotlib/__init__.py": "VERSION = '1.0'"})
    space.build()
    assert space.ran == [] and space.restored == ["figures/a.txt"]


def test_what_a_distribution_needs_counts_with_the_extras_that_are_asked_for(space: Space, site: Site) -> None:
    site.install("base", "1", {"base.py": ""})
    site.install("extra-a", "1", {"extra_a.py": ""})
    site.install("never", "1", {"never.py": ""})
    needs = ["base>=1", "extra-a; extra == 'fast'", "never; extra == 'slow'", "never; python_version < '3'", "gone"]
    site.install("middle", "1", {"middle.py": ""}, needs, ["fast", "slow"])
    site.install("top", "1", {"top.py": ""}, ["Middle[Fast] (>=1)"])
    space.write("script.py", "import top\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    for name, runs in (("base", True), ("extra-a", True), ("never", False), ("middle", True), ("gone", True)):
        site.install(name, "2", {f"{name.replace('-', '_')}.py": ""}, needs if name == "middle" else ())
        space.build()
        assert space.ran == (["data/a.txt"] if runs else []), name


def test_distributions_that_need_each_other_are_no_trap(space: Space, site: Site) -> None:
    site.install("hen", "1", {"hen.py": ""}, ["egg"])
    site.install("egg", "1", {"egg.py": ""}, ["hen[x]"])
    space.write("script.py", "import hen\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    site.install("egg", "2", {"egg.py": ""}, ["hen"])
    assert "egg 1 → 2" in space.why("data/a.txt")


def test_a_namespace_package_means_the_distribution_of_its_part(space: Space, site: Site) -> None:
    site.install("cloud-storage", "1", {"vendor/cloud/storage/__init__.py": "", "vendor/cloud/storage/api.py": ""})
    site.install("cloud-tables", "1", {"vendor/cloud/tables.py": ""})
    old = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)"
    site.install("old-a", "1", {"old/__init__.py": old, "old/a.py": ""})
    site.install("old-b", "1", {"old/b.py": ""})
    space.write(
        "script.py",
        """
        rule("data/storage.txt", run=py("src/storage.py:f"))
        rule("data/tables.txt", run=py("src/tables.py:f"))
        rule("data/old.txt", run=py("src/old_one.py:f"))
        """,
    )
    space.write("src/storage.py", "import vendor.cloud.storage.api\ndef f(): return 'a'")
    space.write("src/tables.py", "from vendor.cloud import tables as t\ndef f(): return 'a'")
    space.write("src/old_one.py", "import old.a\ndef f(): return 'a'")
    space.build()
    site.install("cloud-tables", "2", {"vendor/cloud/tables.py": ""})
    space.build()
    assert space.ran == ["data/tables.txt"]
    site.install("cloud-storage", "2", {"vendor/cloud/storage/__init__.py": "", "vendor/cloud/storage/api.py": ""})
    space.build()
    assert space.ran == ["data/storage.txt"]
    site.install("old-b", "2", {"old/b.py": ""})
    space.build()
    assert space.ran == []


def test_a_distribution_may_have_another_name_than_its_module(space: Space, site: Site) -> None:
    site.install("Py-Image.Lib", "1", {"imagelib/__init__.py": ""})
    info = site.install("yamlish", "1", {"ymlsh.py": ""}, record=False)
    (info / "top_level.txt").write_text("ymlsh\n")
    space.write("script.py", "from imagelib import x\nimport ymlsh\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.write(
        "script.py", "def a():\n    import ymlsh, imagelib\n    return 'a'\nrule('data/a.txt', run=py('script.py:a'))"
    )
    space.build()
    site.install("Py-Image.Lib", "2", {"imagelib/__init__.py": ""})
    assert "py-image-lib 1 → 2" in space.why("data/a.txt")
    space.build()
    (site.folder / "yamlish-1.dist-info").rename(site.folder / "yamlish-2.dist-info")
    (site.folder / "yamlish-2.dist-info/METADATA").write_text("Name: yamlish\nVersion: 2\n")
    assert "yamlish 1 → 2" in space.why("data/a.txt")


DYNAMIC = """
import importlib

def load(name):
    return importlib.import_module("plug" + name)

@rule("data/{name}.txt")
def a(name):
    return load(name).VERSION

rule("data/both.txt", parts=["data/in.txt", "data/on.txt"], run=sh("cat {parts} > {out}"))
"""


def test_what_is_imported_only_while_a_step_runs_counts_too(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    site.install("plug-on", "1", {"plugon.py": "VERSION = 'on 1'"})
    space.write("script.py", DYNAMIC)
    space.build()
    assert space.ran == ["data/both.txt", "data/in.txt", "data/on.txt"]
    site.install("plug-in", "2", {"plugin/__init__.py": "VERSION = 'in 2'"})
    why = space.why("data/in.txt")
    assert "plug-in changed" in why and "environment  plug-in 1 → 2" in why
    space.build()
    assert space.ran == ["data/both.txt", "data/in.txt"] and space.read("data/both.txt") == "in 2on 1"
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.build()
    assert space.ran == [] and space.read("data/both.txt") == "in 1on 1"
    space.build()
    assert space.ran == [] and space.restored == []
    site.install("plug-on", "2", {"plugon.py": "VERSION = 'on 1'"})
    space.build()
    assert space.ran == ["data/on.txt"]
    site.remove("plug-on")
    assert "plug-on 2 removed" in space.why("data/on.txt")
    assert "No module named 'plugon'" in space.build(code=1)


def test_another_worktree_takes_a_trace_only_with_the_same_discovered_versions(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.write("script.py", DYNAMIC)
    space.git("add", "-A")
    space.git("commit", "-qm", "one")
    space.build("data/in.txt")
    space.git("worktree", "add", "-q", "../other")
    other = Space(space.root.parent / "other")
    other.build("data/in.txt")
    assert other.ran == [] and other.restored == ["data/in.txt"]
    site.install("plug-in", "2", {"plugin/__init__.py": "VERSION = 'in 2'"})
    other.build("data/in.txt")
    assert other.ran == ["data/in.txt"] and other.read("data/in.txt") == "in 2"
    space.build("data/in.txt")
    assert space.ran == [] and space.read("data/in.txt") == "in 2"


def test_a_step_that_ends_without_telling_depends_on_all_that_is_installed(space: Space, site: Site) -> None:
    site.install("anything", "1", {"anything.py": ""})
    space.write("script.py", "rule('data/a.txt', run=py('./end.py'))")
    space.write(
        "./end.py",
        """
        import os, sys
        open(sys.argv[-1].partition("=")[2], "w").write("a")
        os._exit(0)
        """,
    )
    space.build()
    site.install("anything", "2", {"anything.py": ""})
    space.build()
    assert space.ran == ["data/a.txt"]


def test_a_shell_step_has_the_software_of_the_python_it_starts_and_no_other(space: Space, site: Site) -> None:
    for name in ("filelib", "modlib", "inlinelib", "toollib", "runlib"):
        site.install(name, "1", {f"{name}.py": "", f"{name}_run/__main__.py": "print(1)"})
    space.write("src/run.py", "import filelib\nprint('x')")
    space.write("src/run.sh", "cat ${1:-/dev/null}\npython3 -m runlib_run")
    space.write(
        "script.py",
        """
        rule("data/plain.txt", run=sh("echo plain > {out}"))
        rule("data/file.txt", run=sh("python src/run.py > {out}"))
        rule("data/module.txt", run=sh("python -m modlib_run > {out}"))
        rule("data/inline.txt", run=sh("python -c 'import inlinelib; print(1)' > {out}"))
        rule("data/script.txt", run=sh("bash src/run.sh > {out}"))
        rule("data/other.txt", run=script("src/run.sh", "bash"), default=False)
        """,
    )
    space.build()
    assert len(space.ran) == 5
    runs = {"filelib": "file", "modlib": "module", "inlinelib": "inline", "toollib": "", "runlib": "script"}
    for name, target in runs.items():
        site.install(name, "2", {f"{name}.py": "", f"{name}_run/__main__.py": "print(1)"})
        space.build()
        assert space.ran == ([f"data/{target}.txt"] if target else []), name
    space.write("/flake.lock", "{}")
    space.build()
    assert len(space.ran) == 5


def test_a_shell_step_that_computes_what_it_imports_depends_on_everything(space: Space, site: Site) -> None:
    site.install("hidden", "1", {"hidden.py": ""})
    space.write("src/run.py", "import importlib\nimportlib.import_module('hid' + 'den')\nprint('x')")
    space.write("script.py", "rule('data/a.txt', run=sh('python src/run.py > {out}'))")
    space.build()
    site.install("hidden", "2", {"hidden.py": ""})
    assert "hidden 1 → 2" in space.why("data/a.txt")


def test_a_command_that_a_distribution_brings_is_that_distribution(space: Space, site: Site) -> None:
    program = Path(sys.executable).parent / "python"  # any program that lies beside this interpreter
    info = site.install("cmd", "1", {"cmdlib.py": ""})
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{program.name} = cmdlib:main\n")
    space.write("script.py", "rule('data/a.txt', run=sh('python --version > {out}'))")
    space.build(env={"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"})
    info = site.install("cmd", "2", {"cmdlib.py": ""})
    (info / "entry_points.txt").write_text(f"[console_scripts]\n{program.name} = cmdlib:main\n")
    env = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    assert "cmd 1 → 2" in space.run("why", "data/a.txt", env=env)


def test_a_command_of_another_virtual_environment_is_a_distribution_there(space: Space, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    (folder,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    tool = tmp_path / "venv" / "bin" / "run-theirs"
    tool.write_text("#!/bin/sh\necho theirs\n")
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"}

    def install(version: str) -> None:
        points = {f"theirs-{version}.dist-info/entry_points.txt": "[console_scripts]\nrun-theirs = theirs:main\n"}
        Site(folder).install("theirs", version, {"theirs.py": "", **points})

    install("1")
    space.write("script.py", "rule('data/a.txt', run=sh('run-theirs > {out}'))")
    space.build(env=env)
    install("2")
    assert "theirs 1 → 2" in space.run("why", "data/a.txt", env=env)


def test_another_python_on_the_path_has_packages_of_its_own(space: Space, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    (folder,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    env = {"PATH": f"{tmp_path}/venv/bin{os.pathsep}{os.environ['PATH']}"}
    Site(folder).install("theirs", "1", {"theirs.py": "V = 1"})
    space.write("src/run.py", "import theirs\nprint(theirs.V)")
    space.write("script.py", "rule('data/a.txt', run=sh('python src/run.py > {out}'))")
    space.build(env=env)
    Site(folder).install("theirs", "2", {"theirs.py": "V = 2"})
    assert "theirs 1 → 2" in space.run("why", "data/a.txt", env=env)
    space.build(env=env)
    assert space.read("data/a.txt") == "2\n"


def test_a_rule_may_say_what_its_environment_is(space: Space, site: Site) -> None:
    site.install("lib", "1", {"lib.py": ""})
    site.install("unused", "1", {"unused.py": ""})
    space.write("/uv.lock", "version = 1\n")
    space.write("./own.lock", "1")
    space.write(
        "script.py",
        """
        rule("data/own.txt", run=py("./lib_user.py:f"))
        rule("data/all.txt", run=py("./lib_user.py:f"), environment="all")
        rule("data/none.txt", run=py("./lib_user.py:f"), environment="none")
        rule("data/lock.txt", run=py("./lib_user.py:f"), environment=["uv.lock", "./own.lock"])
        """,
    )
    space.write("./lib_user.py", "import lib\ndef f(): return 'a'")
    space.build()
    assert len(space.ran) == 4
    site.install("unused", "2", {"unused.py": ""})
    space.build()
    assert space.ran == ["data/all.txt"]
    site.install("lib", "2", {"lib.py": ""})
    space.build()
    assert space.ran == ["data/all.txt", "data/own.txt"]
    space.write("./own.lock", "2")
    assert "own.lock" in space.why("data/lock.txt")
    space.build()
    assert space.ran == ["data/lock.txt"]
    (space.root / "uv.lock").unlink()
    assert "environment=['uv.lock'] finds no file" in space.build(code=2) and "script.py:6" in space.last


@pytest.mark.parametrize("value", ["'some'", "[]", "['']", "3", "{'all': 1}", "[1]", "True"])
def test_an_environment_that_is_none_is_an_error_with_its_line(space: Space, value: str) -> None:
    space.write("script.py", f"rule('data/a.txt', run=sh('echo > {{out}}'), environment={value})")
    done = space.build(code=2)
    assert "environment= takes" in done and "script.py:3" in done


def test_installed_software_that_is_not_as_locked_is_told_once(space: Space, site: Site) -> None:
    site.install("lib", "1.0", {"lib.py": ""})
    site.install("right", "2", {"right.py": ""})
    site.install("unused", "1", {"unused.py": ""})
    lock = '[[package]]\nname = "{}"\nversion = "{}"\n'
    pairs = [("lib", "1.1"), ("right", "2.0"), ("unused", "9"), ("elsewhere", "1")]
    space.write("/poetry.lock", "".join(lock.format(*pair) for pair in pairs))
    space.write("/requirements.txt", "lib==1.0\nright==3\n")
    space.write(
        "script.py",
        """
        import lib, right
        @rule("data/{n}.txt")
        def one(n): return n
        group("both", "data/1.txt", "data/2.txt")
        """,
    )
    done = space.build("both")
    assert done.text.count("warning: what is installed is not what poetry.lock has: lib 1.0 (locked: 1.1)\n") == 1
    assert done.text.count("warning: what is installed is not what requirements.txt has: right 2 (locked: 3)\n") == 1
    assert done.text.count("warning") == 2
    space.write("/poetry.lock", lock.format("lib", "1.0"))
    space.write("/requirements.txt", "")
    space.build("both")
    assert "warning" not in space.last and space.ran == []


def test_broken_metadata_are_a_warning_and_no_traceback(space: Space, site: Site) -> None:
    site.install("lib", "1", {"lib.py": ""}, metadata="Name: lib\nVersion: 1\nRequires-Dist: a !! b\n")
    site.install("bystander", "1", {"bystander.py": ""}, metadata="\x00")
    space.write("script.py", "import lib\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    assert "warning: lib 1: its metadata name a requirement that is none: 'a !! b'" in space.last
    assert "bystander" not in space.last and "Traceback" not in space.last


def test_the_lock_files_are_in_the_trace(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.write("/poetry.lock", "# nothing")
    space.write("script.py", DYNAMIC)
    space.build("data/in.txt")
    seen = view(space.root / ".git" / "labmake" / "store")
    (trace,) = [trace for kind, key in seen.places if kind == "T" for trace, _ in seen.traces(key)]
    assert trace.loaded == {"plug-in": "1"}
    assert trace.locks == {"poetry.lock": digest_of(b"# nothing")}


def test_documents_depend_on_what_renders_them() -> None:
    """The list of what labmake's own steps import is what their text says."""
    import labmake.documents.render as render

    found: set[str] = set()
    for file in Path(render.__file__).parent.glob("*.py"):
        if file.name == "pictures.py":
            continue  # it draws for a person (`labmake blame`), no step imports it
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_spec"):
                found.add(ast.literal_eval(node.args[0]))
    assert found - sys.stdlib_module_names - {"labmake", "__future__"} == set(BUILT_IN["labmake.documents.render"])


def test_a_loose_module_on_the_path_counts_by_its_content(space: Space, site: Site) -> None:
    (site.folder / "mine.py").write_text("V = '1'")
    space.write("script.py", "import mine\n@rule('data/a.txt')\ndef a(): return mine.V")
    space.build()
    space.build()
    assert space.ran == []
    (site.folder / "mine.py").write_text("V = '2'")
    space.build()
    assert space.ran == ["data/a.txt"] and space.read("data/a.txt") == "2"


def test_metadata_that_are_written_in_place_are_seen(space: Space, site: Site) -> None:
    info = site.install("lib", "1", {"lib.py": ""})
    past = time.time() - 100
    for path in (*site.folder.rglob("*"), site.folder):
        os.utime(path, (past, past))
    space.write("script.py", "import lib\n@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    space.build()
    space.build()
    assert space.ran == []
    (info / "METADATA").write_text("Name: lib\nVersion: 1.5\n")
    space.build()
    assert space.ran == ["data/a.txt"]


def test_an_upgrade_while_a_build_runs_stops_it_before_another_step_starts(space: Space, site: Site) -> None:
    site.install("lib", "1", {"lib.py": "V = 1"})
    space.write(
        "script.py",
        f"""
        import lib

        @rule("data/first.txt")
        def first():
            import pathlib, time
            pathlib.Path({str(space.notes)!r}).write_text("started")
            while not pathlib.Path({str(space.notes)!r} + ".go").exists():
                time.sleep(0.01)
            return "1"

        @rule("data/second.txt", first="data/first.txt")
        def second(first):
            return str(lib.V)
        """,
    )
    running = space.start("build", "-j1")
    wait_until(space.notes.exists)
    time.sleep(1.1)
    site.install("lib", "2", {"lib.py": "V = 2"})
    Path(f"{space.notes}.go").touch()
    done = running.end(code=1)
    assert "lib was changed while the build runs" in done and "Traceback" not in done
    assert not space.exists("data/second.txt")
    space.build()
    assert space.read("data/second.txt") == "2"


def test_a_result_is_kept_under_other_software_that_only_its_run_showed(space: Space, site: Site) -> None:
    site.install("plug-in", "1", {"plugin/__init__.py": "VERSION = 'in 1'"})
    space.write("script.py", DYNAMIC)
    space.build("data/in.txt")
    site.install("plug-in", "2", {"plugin/__init__.py": "VERSION = 'in 2'"})
    assert "plug-in 1 → 2" in space.run("keep", "data/in.txt", "-m", "the same")
    space.build("data/in.txt")
    assert space.ran == [] and space.read("data/in.txt") == "in 1"
    assert "kept by" in space.why("data/in.txt")


def test_what_loads_an_input_by_its_annotation_counts_though_no_code_imports_it(space: Space) -> None:
    space.write("./table.csv", "a,b\n1,2\n")
    space.write(
        "script.py",
        """
        @rule("data/a.txt", table="./table.csv")
        def a(table: pandas.DataFrame):
            return str(len(table))
        """,
    )
    space.build()
    seen = view(space.root / ".git" / "labmake" / "store")
    (trace,) = [trace for kind, key in seen.places if kind == "T" for trace, _ in seen.traces(key)]
    assert trace.loaded["pandas"] == importlib.metadata.version("pandas") and "numpy" in trace.loaded
    assert not {"ruff", "pytest", "labmake", "setuptools"} & trace.loaded.keys()


def test_a_document_has_the_software_that_renders_it(space: Space) -> None:
    around = environments(space.root)
    found = around.of_step(["document", "labmake.documents.render", "", "", [], ""], Closure())
    names = {line.partition(" ")[0] for line in found.text.splitlines()}
    assert {"python", "platform", "jinja2", "markupsafe", "typst", "pypandoc-binary"} <= names
    assert not {"numpy", "flake.lock", "R"} & names and found.names is None


def environments(root: Path) -> Environments:
    """The environments of a project, as a build finds them."""

    def digest(path: str) -> str:
        return digest_of((root / path).read_bytes())

    return Environments(
        str(root), CodeReader(root, digest, {}), digest, {}, lambda _: True, dict(os.environ), set(), {}
    )


def test_packaging_and_its_kin_are_no_part_of_a_short_command() -> None:
    """What reads metadata costs more to import than a whole null build."""
    code = "import sys, labmake.cli.session; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"packaging", "email.parser", "tomllib", "labmake.environment.r_packages"} & set(done.stdout.split())


def test_a_fact_that_asked_for_the_whole_environment_is_decided_again(space: Space) -> None:
    space.write("script.py", "@rule('data/a.txt')\ndef a(): return 'a'")
    space.build()
    (database,) = (space.root / ".git/labmake/state").glob("*.db")
    state = State.open(database)
    for node, text in state.facts().items():
        fact = parse_fact(text)
        assert fact is not None
        groups = [
            [(key.partition(" ")[0] if key.startswith("?env") else key, said) for key, said in group]
            for group in fact.groups
        ]
        state.put_facts({node: fact_text(replace(fact, groups=tuple(map(tuple, groups))))})
    state.close()
    shutil.rmtree(space.root / ".git/labmake/state/gear1", ignore_errors=True)
    space.build()
    assert space.ran == [] and "Traceback" not in space.last

"""Which project files belong to a recipe: imports, sourced scripts, words of commands, code=[…]."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labmake.environment.code_files import Closure, CodeFile, CodeReader, by_bytes, union
from labmake.errors import RuleError
from labmake.model import digest_of

EXP = "2023-10-07-Prior"


class Space:
    """A project on disk and the memo that its readers share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.memo: dict[str, Any] = {}
        self.sites: list[str] = []

    def write(self, **files: str) -> None:
        for path, text in files.items():
            self.file(path, text)

    def file(self, path: str, text: str = "") -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def digest(self, path: str) -> str:
        return digest_of((self.root / path).read_bytes())

    @property
    def reader(self) -> CodeReader:
        return CodeReader(self.root, self.digest, self.memo, self.sites)


@pytest.fixture
def space(tmp_path: Path) -> Space:
    space = Space(tmp_path)
    space.file(f"scripts/{EXP}/script.py", "from labmake import rule\n")
    return space


def paths(closure: Closure) -> list[str]:
    return [file.path for file in closure.files]


# --- the recipe's file ---------------------------------------------------------------------------------------------


def test_a_recipe_file_is_looked_up_beside_script_py_then_from_the_root(space: Space) -> None:
    space.file("src/fit.R")
    assert space.reader.find_recipe_file("script.py", EXP) == f"scripts/{EXP}/script.py"
    assert space.reader.find_recipe_file("src/fit.R", EXP) == "src/fit.R"
    assert space.reader.find_recipe_file("./script.py", EXP) == f"scripts/{EXP}/script.py"
    assert space.reader.find_recipe_file("/src/fit.R", EXP) == "src/fit.R"


def test_two_candidates_are_an_error_that_names_both_and_a_dot_or_slash_decides(space: Space) -> None:
    space.file(f"scripts/{EXP}/fit.py")
    space.file("fit.py")
    with pytest.raises(RuleError) as caught:
        space.reader.find_recipe_file("fit.py", EXP)
    assert [value for _, value in caught.value.facts] == [f"scripts/{EXP}/fit.py", "fit.py"]
    assert space.reader.find_recipe_file("./fit.py", EXP) == f"scripts/{EXP}/fit.py"
    assert space.reader.find_recipe_file("/fit.py", EXP) == "fit.py"


def test_without_experiment_both_places_are_the_root(space: Space) -> None:
    space.file("fit.py")
    assert space.reader.find_recipe_file("fit.py", "") == space.reader.find_recipe_file("./fit.py", "") == "fit.py"


@pytest.mark.parametrize(
    ("written", "nearest"),
    [("src/modle.py", "src/model.py"), ("model.py", "src/model.py"), ("./scrpt.py", "script.py")],
)
def test_a_missing_file_is_an_error_with_both_places_and_the_nearest_name(
    space: Space, written: str, nearest: str
) -> None:
    space.file("src/model.py")
    with pytest.raises(RuleError) as caught:
        space.reader.find_recipe_file(written, EXP)
    facts = caught.value.facts
    looked = [value for label, value in facts if label == "looked for"]
    assert looked == [f"scripts/{EXP}/{written.removeprefix('./')}", written][: 1 if written.startswith("./") else 2]
    assert nearest in str(dict(facts)["nearest"])


@pytest.mark.parametrize("written", ["", ".", "../../../etc/passwd", "src", "generated/x.py", "a\0b"])
def test_what_is_no_file_of_the_project_is_no_recipe(space: Space, written: str) -> None:
    space.write(**{"src/model.py": "", "generated/x.py": ""})
    with pytest.raises(RuleError):
        space.reader.find_recipe_file(written, EXP)


def test_a_recipe_that_spells_out_its_experiment_is_told_to_write_a_dot(space: Space) -> None:
    with pytest.raises(RuleError, match=r"write \./script\.py"):
        space.reader.find_recipe_file(f"scripts/{EXP}/script.py", EXP)


# --- Python imports ------------------------------------------------------------------------------------------------


def test_a_closure_holds_what_is_imported_in_every_form_and_place(space: Space) -> None:
    space.file(
        f"scripts/{EXP}/script.py",
        "import json, numpy, a\n"
        "from b import thing\n"
        "from pkg import sub, VALUE\n"
        "import pkg.deep.leaf as leaf\n"
        "def f():\n    import c\n"
        "try:\n    import d\nexcept ImportError:\n    pass\n"
        "if 0:\n    import e\n"
        "import importlib\nimportlib.import_module('g')\n",
    )
    for name in (
        "a",
        "b",
        "c",
        "d",
        "e",
        "g",
        "pkg/__init__",
        "pkg/sub",
        "pkg/deep/__init__",
        "pkg/deep/leaf",
        "unused",
    ):
        space.file(f"src/{name}.py", "import transitively\n" if name == "b" else "")
    space.file("transitively.py")
    expected = ["a", "b", "c", "d", "e", "g", "pkg/__init__", "pkg/deep/__init__", "pkg/deep/leaf", "pkg/sub"]
    closure = space.reader.python(f"scripts/{EXP}/script.py", EXP)
    assert paths(closure) == sorted(
        [f"scripts/{EXP}/script.py", "transitively.py", *(f"src/{name}.py" for name in expected)]
    )


def test_names_are_looked_for_beside_the_recipe_then_in_src_then_at_the_root(space: Space) -> None:
    script = f"scripts/{EXP}/script.py"
    space.file(script, "import tool")
    space.file("tool.py")
    assert paths(space.reader.python(script, EXP)) == [script, "tool.py"]
    space.file("src/tool.py")
    assert paths(space.reader.python(script, EXP)) == [script, "src/tool.py"]
    space.file(f"scripts/{EXP}/tool.py")
    assert paths(space.reader.python(script, EXP)) == [script, f"scripts/{EXP}/tool.py"]


def test_a_module_deep_in_a_package_is_not_found_by_its_neighbours_name_alone(space: Space) -> None:
    space.write(
        **{"src/main.py": "import pkg.a", "src/pkg/__init__.py": "", "src/pkg/a.py": "import b", "src/pkg/b.py": ""}
    )
    assert paths(space.reader.python("src/main.py", EXP)) == ["src/main.py", "src/pkg/__init__.py", "src/pkg/a.py"]


def test_relative_imports_and_the_packages_above_are_followed(space: Space) -> None:
    space.write(
        **{
            "src/main.py": "from pkg.sub.a import f",
            "src/pkg/__init__.py": "",
            "src/pkg/sub/__init__.py": "",
            "src/pkg/sub/a.py": "from . import b\nfrom ..c import g\nfrom .. import d, VALUE\n"
            "from .... import nothing\n",
            "src/pkg/sub/b.py": "",
            "src/pkg/c.py": "",
            "src/pkg/d.py": "",
            "src/pkg/unused.py": "",
        }
    )
    found = set(paths(space.reader.python("src/main.py", EXP)))
    assert found == {
        "src/main.py",
        *(f"src/pkg/{name}.py" for name in ("__init__", "sub/__init__", "sub/a", "sub/b", "c", "d")),
    }


def test_folders_without_init_are_namespace_packages_also_across_roots(space: Space) -> None:
    space.write(
        **{"src/main.py": "import ns.a, ns.b\nfrom ns import c", "src/ns/a.py": "", "ns/b.py": "", "ns/c.py": ""}
    )
    assert paths(space.reader.python("src/main.py", EXP)) == ["ns/b.py", "ns/c.py", "src/main.py", "src/ns/a.py"]


def test_a_regular_package_later_on_the_path_wins_over_a_namespace_folder(space: Space) -> None:
    space.write(**{"src/main.py": "import p.a", "src/p/a.py": "", "p/__init__.py": "", "p/a.py": ""})
    assert paths(space.reader.python("src/main.py", EXP)) == ["p/__init__.py", "p/a.py", "src/main.py"]


def test_a_star_import_of_a_package_imports_the_submodules_it_exports(space: Space) -> None:
    space.write(
        **{
            "src/main.py": "from pkg import *",
            "src/pkg/__init__.py": "__all__ = ['a', 'VALUE']\n__all__ += ['b']",
            "src/pkg/a.py": "",
            "src/pkg/b.py": "",
            "src/pkg/c.py": "",
        }
    )
    found = paths(space.reader.python("src/main.py", EXP))
    assert found == ["src/main.py", "src/pkg/__init__.py", "src/pkg/a.py", "src/pkg/b.py"]


def test_an_extension_module_is_code_by_its_bytes(space: Space) -> None:
    space.write(**{"src/main.py": "import fast", "src/fast.abi3.so": "binary", "src/fast.py": ""})
    closure = space.reader.python("src/main.py", EXP)
    assert CodeFile("src/fast.abi3.so", digest_of(b"binary"), digest_of(b"binary")) in closure.files
    assert "src/fast.py" not in paths(closure)


def test_nothing_is_imported_from_generated_hidden_or_environment_folders(space: Space) -> None:
    space.file("main.py", "import generated.a, site.b, env.c, hidden\nfrom env import c")
    for path in ("generated/a.py", "env/pyvenv.cfg", "env/c.py", ".hidden/x.py", "src/site-packages/numpy.py"):
        space.file(path)
    assert paths(space.reader.python("main.py", "")) == ["main.py"]


def test_circular_imports_end(space: Space) -> None:
    space.write(**{"src/a.py": "import b", "src/b.py": "import a"})
    assert paths(space.reader.python("src/a.py", EXP)) == ["src/a.py", "src/b.py"]


def test_labmake_is_never_project_code(space: Space) -> None:
    space.write(**{"src/main.py": "import labmake\nfrom labmake import rule", "src/labmake/__init__.py": ""})
    assert paths(space.reader.python("src/main.py", EXP)) == ["src/main.py"]


def test_an_editable_install_that_points_into_the_project_is_project_code(space: Space, tmp_path: Path) -> None:
    site = tmp_path / "elsewhere" / "site-packages"
    site.mkdir(parents=True)
    (site / "__editable__.lib.pth").write_text(f"{space.root}/python\n/usr/lib/other\nimport os\n")
    space.sites = [str(site)]
    space.write(**{"src/main.py": "import lib", "python/lib/__init__.py": ""})
    assert space.reader.editable == ("python",)
    assert paths(space.reader.python("src/main.py", EXP)) == ["python/lib/__init__.py", "src/main.py"]


def test_a_syntax_error_shows_file_line_and_caret(space: Space) -> None:
    space.write(**{"src/main.py": "import broken", "src/broken.py": "x = 1\ny = (2\n"})
    with pytest.raises(RuleError) as caught:
        space.reader.python("src/main.py", EXP)
    facts = dict(caught.value.facts)
    assert facts["file"] == "src/broken.py:2"
    assert facts["line"] == "y = (2\n    ^"


@pytest.mark.parametrize("text", ["x = 1\0", "# -*- coding: nonsense -*-\n"])
def test_bytes_that_are_no_python_text_are_an_error_not_a_traceback(space: Space, text: str) -> None:
    space.file("src/main.py", text)
    with pytest.raises(RuleError, match="not valid Python"):
        space.reader.python("src/main.py", EXP)


def test_a_recipe_file_that_vanished_is_told_apart(space: Space) -> None:
    with pytest.raises(FileNotFoundError):
        space.reader.python("src/absent.py", EXP)


def test_one_module_that_reads_sources_makes_bytes_count_in_the_whole_closure(space: Space) -> None:
    space.write(**{"src/main.py": "import tools_of_mine, a", "src/tools_of_mine.py": "x = 1", "src/a.py": "b = 1  # c"})
    before = {file.path: file for file in space.reader.python("src/main.py", EXP).files}["src/a.py"]
    assert before.identity != before.digest
    space.file("src/tools_of_mine.py", "import inspect\ndef show(f): return inspect.getsource(f)")
    after = {file.path: file for file in space.reader.python("src/main.py", EXP).files}["src/a.py"]
    assert after.identity == after.digest


def test_a_plan_that_another_module_imports_counts(space: Space) -> None:
    plan = "from labmake import plan\n@plan('a/{n}')\ndef trial(n):\n    return "
    space.write(**{"src/main.py": "import plans", "src/plans.py": plan + "1"})
    one = space.reader.python("src/main.py", EXP)
    alone = space.reader.python("src/plans.py", EXP)
    space.file("src/plans.py", plan + "2")
    assert space.reader.python("src/main.py", EXP).files[1].identity != one.files[1].identity
    assert space.reader.python("src/plans.py", EXP).files[0].identity == alone.files[0].identity


# --- what is remembered --------------------------------------------------------------------------------------------


def test_an_unchanged_file_is_never_parsed_again(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    space.write(**{"src/main.py": "import a", "src/a.py": "x = 1"})
    first = space.reader.python("src/main.py", EXP)
    parsed: list[str] = []
    parse: Callable[..., Any] = ast.parse
    monkeypatch.setattr(ast, "parse", lambda source, path: parsed.append(path) or parse(source, path))
    assert space.reader.python("src/main.py", EXP) == first
    assert parsed == []
    space.file("src/a.py", "x = 2")
    assert space.reader.python("src/main.py", EXP) != first
    assert parsed == ["src/a.py"]
    os.rename(space.root / "src/a.py", space.root / "src/b.py")
    space.file("src/main.py", "import b")
    space.reader.python("src/main.py", EXP)
    assert parsed == ["src/a.py", "src/main.py"]


def test_the_memo_holds_json_so_that_it_can_be_kept(space: Space) -> None:
    import json

    space.write(
        **{"src/main.py": "from . import a\nimport b.c\n", "src/run.sh": ". ./lib.sh", "src/x.R": "source('y.R')"}
    )
    reader = space.reader
    closures = [reader.python("src/main.py", EXP), reader.script("src/run.sh", EXP), reader.script("src/x.R", EXP)]
    space.memo = json.loads(json.dumps(space.memo))
    reader = space.reader
    assert closures == [
        reader.python("src/main.py", EXP),
        reader.script("src/run.sh", EXP),
        reader.script("src/x.R", EXP),
    ]


def test_a_file_that_appears_shadows_what_was_third_party(space: Space) -> None:
    space.file("src/main.py", "import numpy")
    assert paths(space.reader.python("src/main.py", EXP)) == ["src/main.py"]
    space.file("numpy.py")
    assert paths(space.reader.python("src/main.py", EXP)) == ["numpy.py", "src/main.py"]


def test_the_reader_tells_in_which_folders_it_looked(space: Space) -> None:
    space.file("src/main.py", "import numpy.linalg")
    reader = space.reader
    reader.python("src/main.py", EXP)
    assert set(reader.tree.listed) == {"", "src"}


def test_a_file_edited_while_it_is_read_is_remembered_under_what_was_read(space: Space) -> None:
    space.file("src/main.py", "x = 'new'")
    reader = CodeReader(space.root, lambda path: digest_of(b"x = 'old'"), space.memo, [])
    assert reader.python("src/main.py", EXP).files[0].digest == digest_of(b"x = 'new'")
    assert not any(key.startswith(digest_of(b"x = 'old'")) for key in space.memo)


# --- functions -----------------------------------------------------------------------------------------------------


def test_functions_are_all_names_that_a_module_binds_but_its_plans(space: Space) -> None:
    space.file(
        "src/main.py",
        "from labmake import plan\nfrom a import b as c\nimport x.y\nd = lambda: 1\nif d:\n    def e(): f = 1\n"
        "class G: h = 1\nfor i in (1, (j := 2)): pass\n@plan('p')\ndef decide(): pass\ndef k():\n    global m\n",
    )
    names = space.reader.functions("src/main.py")
    assert sorted(names) == sorted(["plan", "c", "x", "d", "e", "G", "i", "j", "k", "m"])
    assert space.reader.has_function("src/main.py", "e")
    assert not space.reader.has_function("src/main.py", "f")
    assert not space.reader.has_function("src/main.py", "decide")


@pytest.mark.parametrize(
    "text", ["from a import *", "globals()['f'] = 1", "def __getattr__(name): ...", "exec('f = 1')"]
)
def test_a_module_that_may_bind_any_name_may_have_any_function(space: Space, text: str) -> None:
    space.file("src/main.py", text)
    assert space.reader.has_function("src/main.py", "f")


# --- scripts -------------------------------------------------------------------------------------------------------


def test_an_r_script_brings_what_it_sources_and_the_projects_r_files(space: Space) -> None:
    space.write(
        **{
            "src/fit.R": "source(\"helpers.R\")\nsys.source(file = 'src/more.R', envir = e)\n"
            'source(here::here("src", "deep.R"))\n'
            'source("absent.R")\nread.csv("data.csv")\n',
            "src/helpers.R": "source('src/fit.R')",
            "src/more.R": "",
            "src/deep.R": "",
            "src/data.csv": "",
            ".Rprofile": 'source("renv/activate.R")',
            "renv/activate.R": "",
            "renv.lock": "{}",
        }
    )
    found = paths(space.reader.script("src/fit.R", EXP))
    names = ["fit", "helpers", "more", "deep"]
    assert found == sorted([*(f"src/{name}.R" for name in names), ".Rprofile", "renv/activate.R", "renv.lock"])


def test_a_shell_script_brings_what_it_sources_and_runs(space: Space) -> None:
    space.write(
        **{
            "src/run.sh": '#!/bin/bash\n. ./lib.sh\nsource "$(dirname "$0")/more.sh"\nsource "${HERE}/third.sh"\n'
            "python src/restyle.py --config=src/a.toml # see src/notes.md\n",
            "src/lib.sh": "",
            "src/more.sh": "",
            "src/third.sh": "",
            "src/restyle.py": "import helper",
            "src/helper.py": "",
            "src/a.toml": "",
            "src/notes.md": "",
        }
    )
    found = paths(space.reader.script("src/run.sh", EXP))
    assert found == [
        f"src/{n}" for n in ("a.toml", "helper.py", "lib.sh", "more.sh", "restyle.py", "run.sh", "third.sh")
    ]


def test_a_python_file_that_a_shell_script_names_counts_by_its_bytes(space: Space) -> None:
    space.write(**{"src/run.sh": "wc -l src/a.py", "src/a.py": "# one"})
    before = space.reader.script("src/run.sh", EXP)
    space.file("src/a.py", "# two")
    assert [file.identity for file in space.reader.script("src/run.sh", EXP).files] != [
        f.identity for f in before.files
    ]


def test_a_julia_script_brings_what_it_includes(space: Space) -> None:
    space.write(
        **{
            "src/main.jl": 'include("a.jl")\ninclude(joinpath(@__DIR__, "..", "b.jl"))\nprintln("c.jl")\n',
            "src/a.jl": "",
            "b.jl": "",
            "src/c.jl": "",
        }
    )
    assert paths(space.reader.script("src/main.jl", EXP)) == ["b.jl", "src/a.jl", "src/main.jl"]


def test_a_script_of_another_language_is_its_bytes(space: Space) -> None:
    space.write(**{"src/sum.awk": 'source("x.R") src/x.R', "src/x.R": ""})
    assert space.reader.script("src/sum.awk", EXP).files == (
        CodeFile("src/sum.awk", space.digest("src/sum.awk"), space.digest("src/sum.awk")),
    )


def test_a_python_file_given_as_a_script_is_followed_through_its_imports(space: Space) -> None:
    space.write(**{"src/a.py": "import b", "src/b.py": "", "src/tool": "#!/usr/bin/env python3\nimport b"})
    assert space.reader.script("src/a.py", EXP) == space.reader.python("src/a.py", EXP)
    assert paths(space.reader.script("src/tool", EXP)) == ["src/b.py", "src/tool"]


# --- commands ------------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(space: Space) -> Space:
    space.write(
        **{
            "src/restyle.py": "import helper",
            "src/helper.py": "",
            "src/a.toml": "",
            "src/b.awk": "",
            "src/my file.txt": "",
            "src/pkg/__init__.py": "",
            "src/pkg/__main__.py": "import helper",
            "generated/x.py": "",
            "shared.sql": "",
            f"scripts/{EXP}/local.py": "",
            f"scripts/{EXP}/shared.sql": "",
            "scripts/2020-01-01-Old/old.py": "",
        }
    )
    return space


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python src/restyle.py {raw} > {out}", ["src/helper.py", "src/restyle.py"]),
        ("tool --config=src/a.toml {raw}", ["src/a.toml"]),
        ("cat {raw}|awk -f src/b.awk>{out}", ["src/b.awk"]),
        ("(cd . && cat 'src/my file.txt'; cat src/a.toml)", ["src/a.toml", "src/my file.txt"]),
        ("echo it's; cat src/a.toml", ["src/a.toml"]),
        ("x=$(cat src/a.toml) tool", ["src/a.toml"]),
        ("Rscript -e 'source(\"src/b.awk\")'", ["src/b.awk"]),
        ("cat src//a.toml src/../src/b.awk", ["src/a.toml", "src/b.awk"]),
        ("cat \\\n  src/a.toml", ["src/a.toml"]),
        ("python -m pkg {raw}", ["src/helper.py", "src/pkg/__init__.py", "src/pkg/__main__.py"]),
        ("cat shared.sql", [f"scripts/{EXP}/shared.sql"]),
        ("python ./local.py", [f"scripts/{EXP}/local.py"]),
        ("cat ./src/a.toml", []),
        ("/src/restyle.py /usr/bin/env", []),
        ("cat src/{name}.toml src generated/x.py ../x absent.txt", []),
        ("", []),
    ],
)
def test_words_of_a_command_that_name_project_files_are_code(shell: Space, command: str, expected: list[str]) -> None:
    assert paths(shell.reader.command(command, EXP)) == expected


@pytest.mark.parametrize(
    "word", [f"scripts/{EXP}/local.py", f"--file=scripts/{EXP}/anything", "scripts/2020-01-01-Old/old.py"]
)
def test_a_word_in_an_experiments_folder_is_an_error(shell: Space, word: str) -> None:
    with pytest.raises(RuleError) as caught:
        shell.reader.command(f"python {word}", EXP)
    assert any("write ./" in advice for advice in caught.value.todo) == (EXP in word)


def test_a_python_file_that_another_tool_may_read_is_identified_by_its_bytes(shell: Space) -> None:
    run = shell.reader.command("python3 -u src/restyle.py", EXP)
    read = shell.reader.command("wc -l src/restyle.py", EXP)
    both = shell.reader.command("python src/restyle.py; wc -l src/restyle.py", EXP)
    assert run == shell.reader.python("src/restyle.py", EXP)
    assert read == both == by_bytes(run) != run


def test_a_command_that_starts_r_depends_on_the_projects_r_files(shell: Space) -> None:
    shell.file("renv.lock", "{}")
    assert paths(shell.reader.command("Rscript -e 'print(1)'", EXP)) == ["renv.lock"]
    assert paths(shell.reader.command("echo R2", EXP)) == []


# --- code=[…] ------------------------------------------------------------------------------------------------------


def test_code_adds_files_folders_and_patterns_with_their_imports(shell: Space) -> None:
    shell.write(**{"src/sql/a.sql": "", "src/sql/deep/b.sql": "", "src/sql/.hidden/c.sql": "", "src/sql/x.pyc": ""})
    extra = shell.reader.extra
    assert paths(extra(["src/a.toml"], EXP)) == ["src/a.toml"]
    assert paths(extra(["src/sql/"], EXP)) == ["src/sql/a.sql", "src/sql/deep/b.sql"]
    assert paths(extra(["src/*.awk", "src/**/b.sql"], EXP)) == ["src/b.awk", "src/sql/deep/b.sql"]
    assert paths(extra(["src/restyle.py"], EXP)) == ["src/helper.py", "src/restyle.py"]
    assert paths(extra(["./*.sql"], EXP)) == [f"scripts/{EXP}/shared.sql"]


@pytest.mark.parametrize(
    "pattern", ["src/absent.py", "src/*.nothing", "generated/x.py", "generated/*", "shared.sql", ""]
)
def test_code_that_finds_nothing_or_two_things_is_an_error(shell: Space, pattern: str) -> None:
    with pytest.raises(RuleError):
        shell.reader.extra([pattern], EXP)


def test_a_template_that_only_looks_like_python_is_code_in_a_folder_and_an_error_by_name(shell: Space) -> None:
    shell.file("src/templates/model.py", "class {{ name }}: ...(")
    assert paths(shell.reader.extra(["src/templates/"], EXP)) == ["src/templates/model.py"]
    with pytest.raises(RuleError, match="not valid Python"):
        shell.reader.extra(["src/templates/model.py"], EXP)


def test_a_file_that_code_names_counts_by_its_bytes_since_it_may_be_read(shell: Space) -> None:
    files = {file.path: file for file in shell.reader.extra(["src/restyle.py"], EXP).files}
    assert files["src/restyle.py"].identity == files["src/restyle.py"].digest
    assert files["src/helper.py"].identity != files["src/helper.py"].digest


def test_a_file_that_two_closures_identify_differently_counts_by_its_bytes() -> None:
    fine, raw, other = CodeFile("a.py", "d", "i"), CodeFile("a.py", "d", "d"), CodeFile("b.py", "e", "j")
    assert union([Closure((fine,)), Closure((fine, other))]) == Closure((fine, other))
    assert union([Closure((fine,)), Closure((raw,)), Closure((fine,))]) == Closure((raw,))

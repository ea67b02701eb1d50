"""Stories about R: which packages a step attaches, and that their versions count."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from space import Space

from labmake.environment import r_packages
from labmake.environment.required import in_r_file


def put(library: Path, name: str, version: str, needs: str = "") -> None:
    """What an installed package says of itself."""
    folder = library / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "DESCRIPTION").write_text(f"Package: {name}\nVersion: {version}\nImports:{needs}\nBuilt: R 4\n")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert shutil.which("Rscript"), "Rscript is needed: an R step is a part of what is promised"
    folder = tmp_path / "library"
    folder.mkdir()
    monkeypatch.setenv("R_LIBS", str(folder))
    return folder


RULES = """
rule("data/a.txt", run=r("./a.R"))
rule("data/b.txt", run=r("./b.R"))
rule("data/c.txt", run=sh("echo c > {out}"))
"""

WRITE = 'cat("x", file = sub("out=", "", grep("^out=", commandArgs(TRUE), value = TRUE)))\n'


def test_an_r_step_depends_on_the_packages_that_it_attaches_with_what_they_need(space: Space, library: Path) -> None:
    put(library, "tables", "1.0", " R (>= 4.0), helper (>= 1.0),\n  stats")
    put(library, "helper", "2.0")
    put(library, "plots", "3.0")
    put(library, "unused", "1.0")
    space.write("script.py", RULES)
    space.write("./a.R", "if (FALSE) library(tables)\n" + WRITE)
    space.write("./b.R", 'source("b2.R")\n' + WRITE)
    space.write("./b2.R", "f <- function() plots::draw(1)\n")
    space.build()
    assert len(space.ran) == 3
    put(library, "unused", "2.0")
    put(library, "more", "1.0")
    space.build()
    assert space.ran == []
    put(library, "helper", "2.1")
    assert "environment  R:helper 2.0 → 2.1" in space.why("data/a.txt")
    space.build()
    assert space.ran == ["data/a.txt"]
    shutil.rmtree(library / "plots")
    assert "R:plots 3.0 removed" in space.why("data/b.txt")
    space.build()
    assert space.ran == ["data/b.txt"]
    put(library, "plots", "3.0")
    space.build()
    assert space.ran == []


def test_another_library_is_noticed(space: Space, library: Path, tmp_path: Path) -> None:
    put(library, "plots", "3.0")
    put(tmp_path / "other", "plots", "4.0")
    space.write("script.py", RULES)
    space.write("./a.R", WRITE)
    space.write("./b.R", "if (FALSE) plots::draw(1)\n" + WRITE)
    space.build()
    space.build()
    assert space.ran == []
    space.build(env={"R_LIBS": str(tmp_path / "other")})
    assert space.ran == ["data/b.txt"]


def test_with_renv_the_lock_file_is_the_environment(space: Space, library: Path) -> None:
    put(library, "plots", "3.0")
    space.write("/renv.lock", "{}")
    space.write("script.py", RULES)
    space.write("./a.R", WRITE)
    space.write("./b.R", "if (FALSE) library(plots)\n" + WRITE)
    space.build()
    put(library, "plots", "3.1")
    space.build()
    assert space.ran == []
    space.write("/renv.lock", "{ }")
    space.build()
    assert space.ran == ["data/a.txt", "data/b.txt"]


@pytest.mark.parametrize(
    ("text", "packages", "any_package"),
    [
        ("library(dplyr)\nrequire('ggplot2'); require(\"a.b\", quietly = TRUE)", ["a.b", "dplyr", "ggplot2"], False),
        (
            "suppressPackageStartupMessages(library(sf))\nx <- data.table::fread('a:::b')",
            ["a", "data.table", "sf"],
            False,
        ),
        ("# library(no)\nlibrary(stats)\nutils::head(1)", [], False),
        ("library(package = 'zoo')\npacman::p_load(xts, 'glue')", ["glue", "pacman", "xts", "zoo"], False),
        ("if (!requireNamespace('curl', quietly = TRUE)) stop()", ["curl"], False),
        ("for (p in c('a', 'b')) library(p, character.only = TRUE)", ["p"], True),
        ("lapply(pkgs, require, character.only = T)", [], True),
        ("loadNamespace(name)", ["name"], True),
        ("x <- y:z\nlibrary <- 3", [], False),
    ],
)
def test_the_packages_in_a_script(text: str, packages: list[str], any_package: bool) -> None:
    assert in_r_file(text.encode(), "x.R") == {"packages": packages, "any": any_package}


def test_a_description_tells_version_needs_and_commit() -> None:
    text = f"Version: 1.2-3\nDepends: R (>= 3.5), methods, b\nImports: a (>= 1),\n    c.d\nRemoteSha: {'e' * 40}\n"
    assert r_packages.describe(text.encode(), "") == {"version": f"1.2-3 ({'e' * 12})", "needs": ["a", "b", "c.d"]}
    assert r_packages.describe(b"\xff\x00", "") == {"version": "", "needs": []}

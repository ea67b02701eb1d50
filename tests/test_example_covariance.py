"""The example: from script.py and report.md to a PDF on real data, and what a newcomer changes first."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from space import Space

NAME = "2023-10-07-Covariance-Matrix-Prior-Investigation"
EXAMPLE = Path(__file__).parent.parent / "examples" / "covariance"
FIGURES = [f"figures/{name}.svg" for name in ("calibration", "correlations", "differences", "learning", "spectrum")]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Space:
    """A copy of the example that has been built once; the stories below follow each other."""
    root = tmp_path_factory.mktemp("example") / "covariance"
    shutil.copytree(EXAMPLE, root, ignore=shutil.ignore_patterns("generated", "__pycache__"))
    space = Space(root, NAME)
    space.git("init", "-q")
    space.run()
    return space


def replace(space: Space, name: str, old: str, new: str) -> None:
    text = space.read(name)
    assert old in text
    space.path(name).write_text(text.replace(old, new))


@pytest.mark.xdist_group("example")
def test_the_report_is_built_with_its_figures_and_a_second_call_does_nothing(example: Space) -> None:
    assert example.path("outputs/report.pdf").read_bytes().startswith(b"%PDF-")
    assert all(example.exists(figure) for figure in FIGURES)
    assert len(list(example.path("data/fits").iterdir())) == 20
    example.run()
    assert example.ran == example.restored == []
    assert "up to date" in example.last


@pytest.mark.xdist_group("example")
def test_hashes_txt_is_what_sha256sum_checks(example: Space) -> None:
    pins = example.path("hashes.txt")
    assert re.fullmatch(rf"[0-9a-f]{{64}}  generated/{NAME}/assets/data/raw.csv\n", pins.read_text())
    subprocess.run(["sha256sum", "--check", "--strict", pins], cwd=example.root, check=True, capture_output=True)


@pytest.mark.xdist_group("example")
def test_a_changed_plotting_function_rebuilds_its_figures_and_the_documents_and_nothing_else(example: Space) -> None:
    replace(example, "src/visualization.py", "alpha=0.2", "alpha=0.25")
    example.run()
    own = [figure for figure in FIGURES if "calibration" in figure or "learning" in figure]
    assert len(own) == 2 < len(FIGURES)
    assert example.ran == [*own, "outputs/report.html", "outputs/report.pdf"]
    replace(example, "src/visualization.py", "alpha=0.25", "alpha=0.2")
    example.run()
    assert example.ran == []


@pytest.mark.xdist_group("example")
def test_one_more_split_is_one_more_fit_and_what_takes_them_all(example: Space) -> None:
    replace(example, "script.py", "number=20", "number=21")
    example.build("data/results.csv")
    assert example.ran == ["data/fits/20.csv", "data/results.csv", "data/splits.json"]
    replace(example, "script.py", "number=21", "number=20")
    example.build()
    assert example.ran == []
    assert not example.exists("data/fits/20.csv")


@pytest.mark.xdist_group("example")
def test_plain_make_asks_labmake_for_a_file(example: Space, tmp_path: Path) -> None:
    command = tmp_path / "labmake"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m labmake.cli.entry "$@"\n')
    command.chmod(0o755)
    figure = example.path("figures/learning.svg")
    figure.unlink()
    goals = [f"generated/{NAME}/assets/figures/learning.svg", f"generated/{NAME}/assets/data/table.csv"]
    said = subprocess.run(
        ["make", *goals],
        cwd=example.root,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert figure.exists() and said.stderr.count("from the store") == 1

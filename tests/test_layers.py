"""The house: imports point down only, files stay small, and each says its one reason in its first line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "labmake"

LAYERS = [
    {"cli", "__init__"},
    {"experiments", "forge", "documents"},
    {"api", "recipes", "loading"},
    {"engine"},
    {"executors", "store", "environment", "data"},
    {"formats", "results", "jsonvalues", "layout", "model", "errors", "frozen", "seams"},
]
"""From the top down: a module may import what is below it, and what stands beside it in its own room."""

BOTTOM = ["formats", "results", "jsonvalues", "layout", "seams", "model", "errors", "frozen"]
"""The bottom layer has an order of its own: each may import those after it."""

FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def level(name: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if name in layer)


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports from, anywhere in it."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "labmake":
            parts = node.module.split(".")
            rooms.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            rooms.update(a.name.split(".")[1] for a in node.names if a.name.startswith("labmake."))
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down_only(path: Path) -> None:
    own = room(path)
    for other in imported_rooms(path):
        if other == own:
            continue
        if own in BOTTOM:
            assert other in BOTTOM[BOTTOM.index(own) + 1 :], f"{own} imports {other}"
        elif own == "executors":
            # The worker stores and places what it made: the one arrow between rooms of this layer.
            assert level(other) > level(own) or other == "store", f"{own} imports {other}"
        elif own in ("api", "recipes", "loading", "__init__"):
            assert level(other) >= level(own), f"{own} imports {other}"
        else:
            assert level(other) > level(own), f"{own} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_file_says_its_reason_first_and_stays_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the first line tells the one reason of the file"
    assert len(text.splitlines()) <= 600


def test_the_median_file_is_a_screen_or_two() -> None:
    lengths = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lengths[len(lengths) // 2] <= 180

"""When two results count as equal: bytes, numbers up to rounding, pixels."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from labmake.engine.compare import Comparison, close, parse_comparison, unequal
from labmake.errors import Misuse

BYTES = Comparison()


def numbers(tolerance: float) -> Comparison:
    return Comparison("numbers", tolerance)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes", BYTES),
        ("pixels", Comparison("pixels")),
        ("numbers 1e-9", numbers(1e-9)),
        ("numbers 0", numbers(0.0)),
    ],
)
def test_a_comparison_is_one_of_three_words(text: str, expected: Comparison) -> None:
    assert parse_comparison(text) == expected


@pytest.mark.parametrize(
    "text", ["", "numbers", "numbers x", "numbers 1", "numbers -1e-9", "numbers nan", "byte", 3, None]
)
def test_anything_else_is_refused(text: object) -> None:
    with pytest.raises(ValueError):
        parse_comparison(text)


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "same"),
    [
        ("x,1.0", "x,1.0000000001", 1e-9, True),
        ("x,1.0", "x,1.00000001", 1e-9, False),
        ("x,1.0", "y,1.0", 1e-9, False),
        ("1 2 3", "1 2", 1e-9, False),
        ("-1e-12,5", "1e-12,5", 1e-9, False),  # relative: next to nothing is another number
        ("0.0", "-0.0", 0.0, True),
        ("nan,inf", "nan,inf", 0.0, True),
        ("NA,1", "nan,1", 1e-9, True),
        ("NA,1", "2,1", 1e-9, False),
        ('{"a": 1e3}', '{"a": 1000.0}', 0.0, True),
        ("  1.5  2", " 1.5 2", 0.0, True),
        ("fold12", "fold13", 1e-9, False),
        ("1.5e300", "1.5e-300", 1e-9, False),
        ("2026-01-02", "2026-01-03", 1e-9, False),
    ],
)
def test_numbers_may_differ_relatively_and_nothing_else_may(one: str, other: str, tolerance: float, same: bool) -> None:
    assert close(one, other, tolerance) is same


def pair(tmp_path: Path, one: bytes, other: bytes) -> tuple[Path, Path]:
    paths = tmp_path / "one", tmp_path / "other"
    for path, data in zip(paths, (one, other), strict=True):
        path.write_bytes(data)
    return paths


def test_lines_count_and_what_is_no_text_is_compared_by_bytes(tmp_path: Path) -> None:
    assert unequal(*pair(tmp_path, b"1.0\n2\n", b"1.0000000001\n2\n"), numbers(1e-9)) == []
    assert unequal(*pair(tmp_path, b"1.0\n2\n", b"1.0\n"), numbers(1e-9)) == [""]
    assert unequal(*pair(tmp_path, b"1.0\n", b"1.0"), BYTES) == [""]
    assert unequal(*pair(tmp_path, b"\xff1.0", b"\xff1.00"), numbers(1e-9)) == [""]


def test_folders_are_compared_file_by_file_with_links_modes_and_empty_folders(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "a").write_text("same")
        (tmp_path / name / "sub" / "b").write_text(name)
    (tmp_path / "one" / "empty").mkdir()
    (tmp_path / "one" / "link").symlink_to("a")
    (tmp_path / "other" / "link").symlink_to("sub/b")
    (tmp_path / "one" / "run").write_text("x")
    (tmp_path / "other" / "run").write_text("x")
    (tmp_path / "one" / "run").chmod(0o755)
    found = unequal(tmp_path / "one", tmp_path / "other", BYTES)
    assert found == ["empty/", "link", "run", "sub/b"]


def test_pictures_are_equal_if_every_pixel_of_every_frame_is(tmp_path: Path) -> None:
    from PIL import Image

    one, other = tmp_path / "one.png", tmp_path / "other.png"
    picture = Image.new("RGB", (3, 2), (10, 20, 30))
    picture.save(one, compress_level=0)
    picture.save(other, compress_level=9)
    pixels = Comparison("pixels")
    assert unequal(one, other, BYTES) == [""] and unequal(one, other, pixels) == []
    picture.putpixel((1, 1), (10, 20, 31))
    picture.save(other)
    assert unequal(one, other, pixels) == [""]
    Image.new("I;16", (3, 2), 1000).save(one)
    Image.new("I;16", (3, 2), 1001).save(other)
    assert unequal(one, other, pixels) == [""]  # a difference that eight bits would not show
    assert unequal(*pair(tmp_path, b"no picture", b"no  picture"), pixels) == [""]


def test_without_pillow_pixels_are_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    one, other = pair(tmp_path, b"1", b"2")
    with pytest.raises(Misuse, match="needs pillow"):
        unequal(one, other, Comparison("pixels"))
    assert unequal(one, one, Comparison("pixels")) == []

"""When two results count as equal: byte by byte, up to rounding, or as pictures (`compare=` of a rule)."""

from __future__ import annotations

import filecmp
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from labmake.errors import Misuse
from labmake.frozen import frozen

NUMBER = re.compile(
    r"(?<![A-Za-z_\d.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\b(?:nan|NaN|inf|Inf|Infinity|NA)\b"
)
"""A number as CSV, JSON and printed text have it; digits of a name such as float64 are none."""

_SPACE = re.compile(r"[ \t]+")


@frozen
class Comparison:
    """How results are compared: `way` is "bytes", "numbers" or "pixels", `tolerance` the relative one of numbers."""

    way: str = "bytes"
    tolerance: float = 0.0


def parse_comparison(text: object) -> Comparison:
    """The comparison that `compare=` names. Raises ValueError."""
    if text in ("bytes", "pixels"):
        return Comparison(str(text))
    word, _, number = str(text).partition(" ")
    tolerance = float(number) if isinstance(text, str) and word == "numbers" else -1.0
    if not 0 <= tolerance < 1:
        raise ValueError(text)
    return Comparison("numbers", tolerance)


def files_of(path: Path) -> dict[str, Path]:
    """The files of a result by their path in it: of a folder all, links and empty folders too; a file alone is ""."""
    if not path.is_dir():
        return {"": path}
    found: dict[str, Path] = {}
    for base, folders, names in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(base, name))]
        empty = [name for name in folders if name not in links and not os.listdir(os.path.join(base, name))]
        for name in (*names, *links, *empty):
            whole = Path(base, name)
            found[str(whole.relative_to(path)) + ("/" if name in empty else "")] = whole
    return dict(sorted(found.items()))


def unequal(one: Path, other: Path, how: Comparison) -> list[str]:
    """The files of two results that are not equal, by their path in it ("" for a result that is a file).

    Raises Misuse if pixels are to be compared and pillow is not installed.
    """
    first, second = files_of(one), files_of(other)
    return [
        name
        for name in sorted({*first, *second})
        if name not in first or name not in second or not _equal(first[name], second[name], how)
    ]


def _equal(one: Path, other: Path, how: Comparison) -> bool:
    if one.is_symlink() or other.is_symlink():
        return one.is_symlink() and other.is_symlink() and os.readlink(one) == os.readlink(other)
    if one.is_dir() or other.is_dir():
        return one.is_dir() and other.is_dir()
    if bool(one.stat().st_mode & 0o100) != bool(other.stat().st_mode & 0o100):
        return False
    return filecmp.cmp(one, other, shallow=False) or _WAYS[how.way](one, other, how)


def _same_numbers(one: Path, other: Path, how: Comparison) -> bool:
    """Whether two texts differ in nothing but numbers, and in those by rounding alone. What is no text is not equal."""
    try:
        with one.open(encoding="utf-8", newline="") as first, other.open(encoding="utf-8", newline="") as second:
            return all(
                mine == its or (mine is not None and its is not None and close(mine, its, how.tolerance))
                for mine, its in zip_longest(first, second)
            )
    except UnicodeDecodeError:
        return False


def close(one: str, other: str, tolerance: float) -> bool:
    """Whether two lines have the same words, and numbers that differ relatively by `tolerance` at most."""
    if [_SPACE.sub(" ", text).strip() for text in NUMBER.split(one)] != [
        _SPACE.sub(" ", text).strip() for text in NUMBER.split(other)
    ]:
        return False
    pairs = zip(numbers(one), numbers(other), strict=True)
    return all(a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance) for a, b in pairs)


def numbers(text: str) -> Iterator[float]:
    """The numbers in a text; NA is none that another equals but itself."""
    for found in NUMBER.findall(text):
        yield math.nan if found.lstrip("+-") == "NA" else float(found)


def _same_pixels(one: Path, other: Path, how: Comparison) -> bool:
    """Whether two pictures look the same: size and every pixel of every frame. What is no picture is not equal."""
    try:
        from PIL import Image, ImageSequence, UnidentifiedImageError
    except ImportError:
        raise Misuse(
            'compare="pixels" needs pillow',
            [("package", "pillow is not installed where labmake runs")],
            ["pip install pillow, or compare bytes"],
        ) from None

    def frames(picture: Image.Image) -> Iterator[tuple[tuple[int, int], bytes]]:
        for frame in ImageSequence.Iterator(picture):
            deep = frame.mode.startswith(("I", "F"))  # 16 bits and more, which RGBA would cut
            yield frame.size, frame.tobytes() if deep else frame.convert("RGBA").tobytes()

    try:
        with Image.open(one) as first, Image.open(other) as second:
            same: Iterable[bool] = (mine == its for mine, its in zip_longest(frames(first), frames(second)))
            return all(same)
    except (UnidentifiedImageError, OSError, ValueError):
        return False


_WAYS: dict[str, Callable[[Path, Path, Comparison], bool]] = {
    "bytes": lambda one, other, how: False,
    "numbers": _same_numbers,
    "pixels": _same_pixels,
}

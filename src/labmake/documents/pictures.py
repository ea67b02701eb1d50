"""A picture of how two versions of a figure differ: before, after, and the difference, side by side.

Drawn with pillow, which matplotlib brings. SVG and PDF are rasterised by typst. Without pillow before and after alone
are shown, set side by side by typst.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

RASTER = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")
DRAWN = (".svg", ".pdf")
DENSITY = 144
"""Pixels an inch of vector figures."""

LARGEST = 3000
"""Pixels of a side above which a figure is shown smaller."""

GAP = 12
"""Pixels between the three parts."""


class NoPicture(Exception):
    """Why the difference of two figures cannot be drawn."""


def is_figure(path: str) -> bool:
    """Whether the difference of two files of this name may be drawn."""
    return path.lower().endswith((*RASTER, *DRAWN))


def picture_of(path: str, before: bytes, after: bytes) -> tuple[bytes, str]:
    """A PNG of two versions of the figure `path` and their difference, and what it shows in words.

    Raises NoPicture if they are no figures that can be read here.
    """
    suffix = Path(path).suffix.lower()
    try:
        import PIL  # noqa: F401
    except ImportError:
        return _beside(suffix, before, after), "before | after (install pillow to see the difference)"
    pair = [_raster(suffix, data) for data in (before, after)]
    return _drawn(*pair)


def _raster(suffix: str, data: bytes) -> Any:
    """The figure as an image on white."""
    import io

    from PIL import Image, UnidentifiedImageError

    try:
        raster = _typeset(f'#image("0{suffix}")', suffix, data) if suffix in DRAWN else data
        image = Image.open(io.BytesIO(raster)).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NoPicture(f"it cannot be read as {suffix[1:]}: {error}") from None
    image.thumbnail((LARGEST, LARGEST))
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _drawn(before: Any, after: Any) -> tuple[bytes, str]:
    import io

    from PIL import Image, ImageChops, ImageOps

    width, height = max(before.width, after.width), max(before.height, after.height)
    pair = []
    for image in (before, after):
        padded = Image.new("RGB", (width, height), "white")
        padded.paste(image, (0, 0))
        pair.append(padded)
    difference = ImageChops.difference(*pair)
    grey = difference.convert("L").point(lambda value: 255 if value else 0)
    box, changed = grey.getbbox(), grey.histogram()[255]
    # What is the same stays as a pale ghost, so that the eye finds its place; what differs is red.
    shown = ImageOps.colorize(ImageOps.grayscale(pair[1]), "#b8b8b8", "white")
    shown.paste(Image.new("RGB", (width, height), "#d40000"), mask=grey)
    whole = Image.new("RGB", (3 * width + 2 * GAP, height), "#808080")
    for number, image in enumerate((*pair, shown)):
        whole.paste(image, (number * (width + GAP), 0))
    written = io.BytesIO()
    whole.save(written, "PNG")
    return written.getvalue(), _words(before.size, after.size, changed / (width * height), box)


def _words(before: tuple[int, int], after: tuple[int, int], part: float, box: tuple[int, int, int, int] | None) -> str:
    size = "" if before == after else f"; {before[0]} × {before[1]} → {after[0]} × {after[1]} pixels"
    if box is None:
        return f"before | after | difference: no pixel differs{size}"
    percent = f"{100 * part:.2g} %" if part < 0.995 else "all"
    return f"before | after | difference: {percent} of the pixels differ{size}"


def _beside(suffix: str, before: bytes, after: bytes) -> bytes:
    names = f'image("0{suffix}"), image("1{suffix}")'
    return _typeset(f"#stack(dir: ltr, spacing: 6pt, {names})", suffix, before, after)


def _typeset(text: str, suffix: str, *figures: bytes) -> bytes:
    """A PNG of a typst text in which `<number><suffix>` are these figures."""
    import typst

    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(figures):
            Path(folder, f"{number}{suffix}").write_bytes(data)
        page = "#set page(width: auto, height: auto, margin: 0pt)\n"
        try:
            compiler: Any = typst.Compiler(root=folder)
            png = compiler.compile(input=(page + text).encode(), format="png", ppi=DENSITY)
        except typst.TypstError as error:
            said = str(error.message).strip().split("\n")[0]
            raise NoPicture(f"it cannot be drawn as {suffix[1:]}: {said}") from None
    if isinstance(png, list):  # a figure of several pages: the first
        png = png[0]
    assert isinstance(png, bytes)
    return png

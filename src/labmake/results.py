"""A returned value becomes a file: its type and the file's suffix decide how, and equal values give equal bytes."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

from labmake.errors import LabmakeError, RuleError
from labmake.jsonvalues import plain, type_name

_DRAWN = (".svg", ".png", ".pdf", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".eps", ".ps")

BINARY = {".parquet", ".feather", ".npy", ".npz", ".pkl", ".xlsx", ".zip", ".gif", *_DRAWN} - {".svg", ".eps", ".ps"}
"""Suffixes that hold no text."""

_PACKABLE = {".csv", ".tsv", ".json", ".jsonl", ".txt", ".md"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}

_KINDS = {
    "pandas.DataFrame": "a pandas table",
    "pandas.Series": "a pandas table",
    "polars.DataFrame": "a polars table",
    "polars.LazyFrame": "a polars table",
    "polars.Series": "a polars table",
    "numpy.MaskedArray": "a masked array",
    "numpy.ndarray": "an array",
    "numpy.generic": "a number",
    "matplotlib.Figure": "a figure",
    "matplotlib.Axes": "a figure",
    "builtins.dict": "a dict",
    "builtins.list": "a list",
    "builtins.tuple": "a list",
    "builtins.bool": "a number",
    "builtins.int": "a number",
    "builtins.float": "a number",
    "builtins.NoneType": "a number",
    "builtins.str": "text",
    "builtins.bytes": "bytes",
    "builtins.bytearray": "bytes",
}


def split_suffix(path: PurePath) -> tuple[str, bool]:
    """The suffix that says the format, in lower case, and whether the file is packed: `x.csv.gz` → (".csv", True)."""
    name = PurePath(path.name.lower())
    return (PurePath(name.stem).suffix, True) if name.suffix == ".gz" else (name.suffix, False)


def kind_of(value: object) -> str:
    """What `value` is in the words of the table of writers; decided by names, so that no library is imported."""
    for cls in type(value).__mro__:
        kind = _KINDS.get(f"{cls.__module__.partition('.')[0]}.{cls.__name__}")
        if kind is not None:
            return kind
    if _figure(value) is not None or any(hasattr(value, name) for name in ("savefig", "write_html", "save")):
        return "a drawing"
    return "another object"


def write(value: object, path: Path) -> None:
    """Write `value` to `path` in the format of its suffix; the same value always gives the same bytes.

    Tables and Series go to .csv .tsv .json .jsonl .parquet .feather (the index only if it is not the default one),
    arrays to .npy .npz .csv .tsv .json, figures to .svg .png .pdf and the like (saved as they are, then closed),
    dicts, lists and numbers to .json, dicts of arrays to .npz, lists of equal dicts to .csv .tsv .jsonl, text to any
    suffix of text, bytes to any, and every object to .pkl. `.gz` may follow .csv .tsv .json .jsonl .txt .md.
    In JSON the order of insertion stays, dates are ISO 8601, NaN and other missing values are null; an infinite number
    has no JSON and is an error. Raises RuleError if type and suffix do not fit or the library cannot write it.
    """
    suffix, packed = split_suffix(path)
    kind = kind_of(value)
    writer = _writer(kind, suffix)
    if writer is None or (packed and suffix not in _PACKABLE):
        raise _mismatch(value, kind, path)
    try:
        writer(value, path)
    except (LabmakeError, OSError):
        raise
    except Exception as error:
        raise RuleError(
            f"{kind} could not be written to {path}",
            [("returned", type_name(value)), ("error", f"{type(error).__name__}: {error}")],
            ["write the file in the function itself, to the path `out`"],
        ) from error


def _writer(kind: str, suffix: str) -> Callable[[Any, Path], None] | None:
    if kind == "bytes":
        return lambda value, path: _write_bytes(path, bytes(value))
    if kind == "text" and suffix not in BINARY:
        return _write_text
    return _WRITERS.get(kind, {}).get(suffix) or (_write_pickle if suffix == ".pkl" else None)


def _mismatch(value: object, kind: str, path: Path) -> RuleError:
    suffix, packed = split_suffix(path)
    name = suffix + (".gz" if packed else "")
    if kind == "another object":
        kind = f"an object of type {type_name(value)}"
    goes = "any suffix of text" if kind == "text" else " ".join([*_WRITERS.get(kind, {}), ".pkl"])
    takes = [other for other, table in _WRITERS.items() if suffix in table] if not packed or suffix in _PACKABLE else []
    takes += [] if suffix in BINARY else ["text"]
    return RuleError(
        f"{kind} cannot be written to a {name or 'file without suffix'}" + (" file" if name else ""),
        [
            ("returned", type_name(value)),
            ("file", path),
            (f"{kind} goes to", goes),
            (f"{name or 'no suffix'} takes", ", ".join([*takes, "bytes"])),
        ],
        ["return what fits, name the target otherwise, or write it in the function itself, to the path `out`"],
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as file:
        if split_suffix(path)[1]:
            import gzip  # 7 ms, and few commands and steps need it

            # Neither name nor time goes into the header of the archive: they would differ between two runs.
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as archive:
                yield archive  # type: ignore[misc]
        else:
            yield file


def _write_bytes(path: Path, data: bytes) -> None:
    with _opened(path) as file:
        file.write(data)


def _write_text(value: str, path: Path) -> None:
    if split_suffix(path)[0] == ".json":
        try:
            json.loads(value)
        except ValueError as error:
            raise RuleError(
                f"the text for {path} is not JSON",
                [("error", error)],
                ["return the value itself (dict, list, number): it is written as JSON; or json.dumps of it"],
            ) from error
    _write_bytes(path, value.encode())


def _write_number(value: object, path: Path) -> None:
    _write_bytes(path, f"{plain(value)}\n".encode())


def _write_pickle(value: object, path: Path) -> None:
    import pickle

    with _opened(path) as file:
        pickle.dump(value, file, protocol=5)


def _write_json(value: object, path: Path) -> None:
    _write_bytes(path, (json.dumps(plain(value), indent=1, ensure_ascii=False) + "\n").encode())


def _write_lines(rows: Any, path: Path) -> None:
    with _opened(path) as file:
        for row in plain(list(rows)):
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def _write_rows(rows: Any, path: Path) -> None:
    header = list(rows[0]) if rows and isinstance(rows[0], Mapping) else []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping) or list(row) != header:
            raise RuleError(
                f"a list becomes {path} only if it holds dicts with the same keys",
                [("keys of the first", ", ".join(map(str, header)) or "none"), (f"element {number}", repr(row)[:200])],
                ["return dicts with the same keys in the same order, or a pandas or polars table"],
            )
    _write_cells([header, *(list(plain(list(row.values()))) for row in rows)] if rows else [], path)


def _write_cells(rows: list[list[Any]], path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=_SEPARATORS[split_suffix(path)[0]], lineterminator="\n").writerows(rows)
    _write_bytes(path, text.getvalue().encode())


def _frame(value: Any) -> tuple[Any, bool]:
    """A pandas table, and whether its index says something: the default one only counts the rows."""
    frame = value.to_frame("value" if value.name is None else value.name) if hasattr(value, "to_frame") else value
    index = frame.index
    default = type(index).__name__ == "RangeIndex" and (index.start, index.step, index.name) == (0, 1, None)
    return frame, not default


def _pandas_csv(value: Any, path: Path) -> None:
    frame, indexed = _frame(value)
    with _opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        frame.to_csv(text, sep=_SEPARATORS[split_suffix(path)[0]], index=indexed, lineterminator="\n")
        text.flush()
        text.detach()


def _pandas_json(value: Any, path: Path) -> None:
    if hasattr(value, "to_frame"):
        return _write_json(dict(value.items()) if _frame(value)[1] else value.tolist(), path)
    return _write_json(_pandas_records(value), path)


def _pandas_records(value: Any) -> Any:
    frame, indexed = _frame(value)
    return (frame.reset_index() if indexed else frame).to_dict(orient="records")


def _pandas_feather(value: Any, path: Path) -> None:
    frame, indexed = _frame(value)
    (frame.reset_index() if indexed else frame).to_feather(path)


def _polars(value: Any) -> Any:
    """A polars table in one chunk: how it was put together shall not show in the file."""
    table = value.collect() if hasattr(value, "collect") else value
    return (table if hasattr(table, "columns") else table.to_frame()).rechunk()


def _polars_csv(value: Any, path: Path) -> None:
    with _opened(path) as file:
        _polars(value).write_csv(file, separator=_SEPARATORS[split_suffix(path)[0]], line_terminator="\n")


def _array_csv(value: Any, path: Path) -> None:
    if value.ndim not in (1, 2) or value.dtype.names:
        raise RuleError(
            f"an array becomes {path} only with one or two dimensions and without fields",
            [("shape", value.shape), ("dtype", value.dtype)],
            ["use .npy, or return a table"],
        )
    _write_cells(value.reshape(len(value), -1).tolist(), path)


def _array_npy(value: Any, path: Path) -> None:
    import numpy

    with path.open("wb") as file:
        numpy.save(file, value, allow_pickle=False)


def _arrays_npz(value: Any, path: Path) -> None:
    """numpy.savez stamps each array with the time of day, so the zip is written here, at the earliest time it knows."""
    import zipfile

    import numpy

    arrays = value if isinstance(value, dict) else {"arr_0": value}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(entry, "w", force_zip64=True) as file:
                numpy.save(file, numpy.asarray(array), allow_pickle=False)


def _figure(value: object) -> Any:
    """The matplotlib figure that `value` is or belongs to (Axes, seaborn's grids), else None."""
    for candidate in (value, getattr(value, "figure", None)):
        if any(cls.__name__ == "Figure" and cls.__module__ == "matplotlib.figure" for cls in type(candidate).__mro__):
            return candidate
    return None


def _write_figure(value: Any, path: Path) -> None:
    """Ids in an SVG are salted with a fixed word, and what names the time or the program's version is left out."""
    import matplotlib

    figure, suffix = _figure(value), split_suffix(path)[0]
    metadata: dict[str, dict[str, str | None]] = {
        ".svg": {"Date": None, "Creator": "matplotlib"},
        ".pdf": {"CreationDate": None, "Creator": "matplotlib", "Producer": "matplotlib"},
        ".png": {"Software": None},
    }
    with matplotlib.rc_context({"svg.hashsalt": "labmake", "svg.fonttype": "path"}):
        figure.savefig(path, format=suffix[1:], metadata=metadata.get(suffix))
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(figure)


def _write_drawing(value: Any, path: Path) -> None:
    """Drawings of other libraries, known by their methods: savefig, plotly's write_*, altair's and pillow's save."""
    suffix = split_suffix(path)[0]
    if _figure(value) is not None and suffix in _DRAWN:
        _write_figure(value, path)
    elif hasattr(value, "write_html"):
        if suffix == ".html":
            # plotly invents a new id for each file unless it is given one.
            value.write_html(str(path), div_id="figure")
        elif suffix == ".json":
            value.write_json(str(path))
        else:
            value.write_image(str(path))
    else:
        (value.savefig if hasattr(value, "savefig") else value.save)(str(path))


_WRITERS: dict[str, dict[str, Callable[[Any, Path], None]]] = {
    "a pandas table": {
        ".csv": _pandas_csv,
        ".tsv": _pandas_csv,
        ".json": _pandas_json,
        ".jsonl": lambda value, path: _write_lines(_pandas_records(value), path),
        ".parquet": lambda value, path: _frame(value)[0].to_parquet(path, engine="pyarrow"),
        ".feather": _pandas_feather,
    },
    "a polars table": {
        ".csv": _polars_csv,
        ".tsv": _polars_csv,
        ".json": lambda value, path: _write_json(_polars(value).to_dicts(), path),
        ".jsonl": lambda value, path: _write_lines(_polars(value).to_dicts(), path),
        ".parquet": lambda value, path: _polars(value).write_parquet(path),
        ".feather": lambda value, path: _polars(value).write_ipc(path),
    },
    "an array": {".npy": _array_npy, ".npz": _arrays_npz, ".csv": _array_csv, ".tsv": _array_csv, ".json": _write_json},
    "a figure": dict.fromkeys(_DRAWN, _write_figure),
    "a drawing": dict.fromkeys([*_DRAWN, ".html", ".json"], _write_drawing),
    "a dict": {".json": _write_json, ".npz": _arrays_npz},
    "a list": {".json": _write_json, ".jsonl": _write_lines, ".csv": _write_rows, ".tsv": _write_rows},
    "a number": {".json": _write_json, ".txt": _write_number},
}

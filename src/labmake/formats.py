"""Files become values: an input is loaded by its annotation and suffix, a plan reads JSON and CSV. Results: `write`."""

from __future__ import annotations

import csv
import io
import json
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from labmake.errors import LabmakeError, RuleError, Where
from labmake.results import BINARY, split_suffix, write

__all__ = ["csv_rows", "load", "load_by_suffix", "loadable", "read_csv", "read_json", "write"]

_MODULES = {"pd": "pandas", "pl": "polars", "np": "numpy"}
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_TEXT = " ".join([".txt", ".md", ".csv", ".json", "and other text"])


def load(path: Path, annotation: object) -> object:
    """The file at `path` as the value its annotation asks for; the path itself if there is none or it is not known.

    `annotation` is a class, an optional or generic one (`pandas.DataFrame | None`, `dict[str, float]`), or the text of
    one. Known are pandas.DataFrame, pandas.Series, polars.DataFrame, numpy.ndarray, dict, list, str, bytes, int, float,
    bool. A CSV's numbers are read to the last digit; dates stay text; an index that was written is a column.
    Raises RuleError if suffix and annotation do not fit, or the file does not hold what its suffix says.
    """
    name = _name(annotation)
    if name == "bytes":
        return path.read_bytes()
    suffix, _ = split_suffix(path)
    if name == "str" and suffix not in BINARY:
        loader: Callable[[Path], Any] | None = _text
    elif loadable(annotation):
        loader = _LOADERS.get(name, {}).get(suffix)
    else:
        return path
    if loader is None:
        takes = _TEXT if name == "str" else " ".join(_LOADERS[name])
        raise RuleError(
            f"an input annotated {name} cannot be loaded from a {suffix or 'file without suffix'}"
            + (" file" if suffix else ""),
            [
                ("file", path),
                (f"{name} comes from", takes),
                (f"{suffix or 'no suffix'} loads as", ", ".join(_known(suffix)) or "Path"),
            ],
            ["annotate it as Path (or not at all) and read it in the function"],
        )
    try:
        value = loader(path)
    except (LabmakeError, OSError):
        raise
    except Exception as error:
        raise RuleError(
            f"{path} could not be loaded as {name}",
            [("file", path), ("error", f"{type(error).__name__}: {error}")],
            ["annotate the input as Path (or not at all) and read it in the function"],
        ) from error
    return _checked(value, name, path)


_TABLES = ("pandas.DataFrame", "polars.DataFrame")

_USUAL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".csv", ".tsv"), (*_TABLES, "list")),
    **dict.fromkeys((".parquet", ".feather", ".xlsx"), _TABLES),
    ".npy": ("numpy.ndarray",),
    ".npz": ("dict",),
    ".toml": ("dict",),
    ".jsonl": ("list",),
    ".txt": ("str",),
    ".md": ("str",),
}
"""What a file is loaded as when nobody says; the first whose library is installed."""


def load_by_suffix(path: Path) -> object:
    """The file at `path` as what one usually wants of its suffix: a table (pandas, else polars, else a list of rows),
    an array, a JSON value, a text; the path itself of figures, folders and what is not known.

    Raises RuleError if the file does not hold what its suffix says, or no library for it is installed.
    """
    suffix, _ = split_suffix(path)
    if path.is_dir() or suffix not in (*_USUAL, ".json", ".pkl"):
        return path
    if suffix in (".json", ".pkl"):
        return _json(path) if suffix == ".json" else _pickle(path)
    from importlib.util import find_spec

    usual = [name for name in _USUAL[suffix] if suffix in _LOADERS.get(name, {}) or name == "str"]
    for name in usual:
        if "." not in name or find_spec(name.partition(".")[0]) is not None:
            return load(path, name)
    raise RuleError(
        f"no library that loads a {suffix} file is installed",
        [("file", path), ("libraries", ", ".join(name.partition(".")[0] for name in usual))],
        ["install one of them"],
    )


def loadable(annotation: object) -> bool:
    """Whether `load` gives something else than the path for this annotation."""
    name = _name(annotation)
    return name in ("str", "bytes") or name in _LOADERS


def _known(suffix: str) -> list[str]:
    names = [name for name, loaders in _LOADERS.items() if suffix in loaders]
    return [*names, *([] if suffix in BINARY else ["str"]), "bytes", "Path"]


def _name(annotation: Any) -> str:
    """The annotation as `module.Class` or a built-in's name, with None and what stands in brackets taken off."""
    if isinstance(annotation, str):
        options = [part.strip() for part in annotation.split("|")]
        names = [option.partition("[")[0] for option in options if option != "None"]
        if len(names) != 1:
            return ""
        module, dot, cls = names[0].rpartition(".")
        return f"{_MODULES.get(module, module)}{dot}{cls}"
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        left = [option for option in typing.get_args(annotation) if option is not type(None)]
        return _name(left[0]) if len(left) == 1 else ""
    cls = origin or annotation
    if not isinstance(cls, type):
        return ""
    # By the package's name alone: pandas.DataFrame tells of itself as pandas.core.frame.DataFrame or pandas.DataFrame.
    package = cls.__module__.partition(".")[0]
    return cls.__name__ if package == "builtins" else f"{package}.{cls.__name__}"


def _checked(value: Any, name: str, path: Path) -> Any:
    """`value`, if it is what was asked for: JSON, TOML and pickle files can hold anything."""
    if name == "float" and type(value) is int:
        return float(value)
    found = _name(type(value))
    if found != name:
        raise RuleError(
            f"{path} does not hold what the input's annotation says",
            [("annotation", name), ("holds", found)],
            [f"annotate it as {found}, or change what is written to the file"],
        )
    return value


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if not split_suffix(path)[1]:
        return data
    import gzip  # 7 ms, and few commands and steps need it

    return gzip.decompress(data)


def _text(path: Path) -> str:
    return _bytes(path).decode()


def _json(path: Path) -> Any:
    return read_json(_bytes(path), str(path))


def _json_lines(path: Path) -> list[Any]:
    lines = enumerate(_text(path).split("\n"), 1)
    return [_parsed(line, str(path), number) for number, line in lines if line.strip()]


def _csv_list(path: Path) -> list[dict[str, str]]:
    return read_csv(_bytes(path), str(path))


def _toml(path: Path) -> dict[str, Any]:
    import tomllib

    return tomllib.loads(_text(path))


def _pickle(path: Path) -> Any:
    import pickle

    with path.open("rb") as file:
        return pickle.load(file)


def _scalar(cls: type) -> Callable[[Path], Any]:
    def from_text(path: Path) -> Any:
        text = _text(path).strip()
        return {"true": True, "false": False}[text.lower()] if cls is bool else cls(text)

    return from_text


def _pandas_csv(path: Path) -> Any:
    import pandas

    # Until 3.1 the default parser could miss the last digit of a float.
    new = tuple(map(int, pandas.__version__.split(".")[:2])) >= (3, 1)
    exact: dict[str, Any] = {} if new else {"float_precision": "round_trip"}
    return pandas.read_csv(path, sep=_SEPARATORS[split_suffix(path)[0]], **exact)


def _pandas(reader: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        import pandas

        return getattr(pandas, reader)(path)

    return read


def _pandas_from(records: Callable[[Path], Any]) -> Callable[[Path], Any]:
    # pandas.read_json guesses dates and types from column names; the values are taken as they stand instead.
    def read(path: Path) -> Any:
        import pandas

        return pandas.DataFrame(records(path))

    return read


def _series_from(frame: Callable[[Path], Any]) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        table = frame(path)
        if table.shape[1] == 2:
            table = table.set_index(table.columns[0])
        if table.shape[1] != 1:
            raise RuleError(
                f"{path} does not hold one series",
                [("columns", ", ".join(map(str, table.columns)))],
                ["a series is one column, or an index and one column; annotate it as pandas.DataFrame"],
            )
        return table.iloc[:, 0]

    return read


def _series_json(path: Path) -> Any:
    import pandas

    return pandas.Series(_json(path))


def _polars(reader: str, **options: Any) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        import polars

        # polars maps Arrow files into memory, which fails for packed ones and would pin a file that is then recycled.
        return getattr(polars, reader)(_bytes(path), **options)

    return read


def _array_csv(path: Path) -> Any:
    import numpy

    rows = csv_rows(_bytes(path), str(path))
    array = numpy.array([[float(cell) for cell in row] for _, row in rows])
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _array_json(path: Path) -> Any:
    import numpy

    return numpy.array(_json(path))


def _npy(path: Path) -> Any:
    import numpy

    return numpy.load(path, allow_pickle=False)


def _npz(path: Path) -> dict[str, Any]:
    with _npy(path) as arrays:
        return dict(arrays)


_FRAMES: dict[str, Callable[[Path], Any]] = {
    ".csv": _pandas_csv,
    ".tsv": _pandas_csv,
    ".json": _pandas_from(_json),
    ".jsonl": _pandas_from(_json_lines),
    ".parquet": _pandas("read_parquet"),
    ".feather": _pandas("read_feather"),
    ".xlsx": _pandas("read_excel"),
}

_LOADERS: dict[str, dict[str, Callable[[Path], Any]]] = {
    "pandas.DataFrame": {**_FRAMES, ".pkl": _pickle},
    "pandas.Series": {
        **{suffix: _series_from(frame) for suffix, frame in _FRAMES.items()},
        ".json": _series_json,
        ".pkl": _pickle,
    },
    "polars.DataFrame": {
        ".csv": _polars("read_csv"),
        ".tsv": _polars("read_csv", separator="\t"),
        ".json": _polars("read_json"),
        ".jsonl": _polars("read_ndjson"),
        ".parquet": _polars("read_parquet"),
        ".feather": _polars("read_ipc"),
        ".pkl": _pickle,
    },
    "numpy.ndarray": {".npy": _npy, ".csv": _array_csv, ".tsv": _array_csv, ".json": _array_json, ".pkl": _pickle},
    "dict": {".json": _json, ".toml": _toml, ".npz": _npz, ".pkl": _pickle},
    "list": {".json": _json, ".jsonl": _json_lines, ".csv": _csv_list, ".tsv": _csv_list, ".pkl": _pickle},
    "int": {".json": _json, ".txt": _scalar(int), ".pkl": _pickle},
    "float": {".json": _json, ".txt": _scalar(float), ".pkl": _pickle},
    "bool": {".json": _json, ".txt": _scalar(bool), ".pkl": _pickle},
}


def read_json(data: bytes, name: str) -> Any:
    """The value in a JSON file's bytes; `name` is the file in errors. Raises RuleError with the line if malformed."""
    return _parsed(_decoded(data, name), name, 1)


def _parsed(text: str, name: str, first: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first + error.lineno - 1
        raise _malformed(name, "JSON", line, f"{error.msg}, column {error.colno}") from error
    except RecursionError as error:
        raise _malformed(name, "JSON", 0, "nested too deeply") from error


def read_csv(data: bytes, name: str) -> list[dict[str, str]]:
    """The rows of a CSV (or, if `name` ends in .tsv, TSV) file with a header, each as column → text.

    Raises RuleError with the line for a missing header, two columns of one name, a row of another length, bad quotes.
    """
    rows = csv_rows(data, name)
    _, header = next(rows, (1, []))
    if not header:
        raise _malformed(name, "a table", 1, "the header is missing")
    if len(set(header)) != len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise _malformed(name, "a table", 1, f"two columns are named {twice!r}")
    return [dict(zip(header, row, strict=True)) for _, row in rows]


def csv_rows(data: bytes, name: str) -> Iterator[tuple[int, list[str]]]:
    """(line of its end, cells) of each row that is not blank, the header among them; all have the same length.

    Raises RuleError with the line for a row of another length or bad quotes.
    """
    # The module's default limit of 128 KiB for one cell is a guard for servers; a cell may hold a whole text.
    csv.field_size_limit(2**31 - 1)
    text = io.StringIO(_decoded(data, name), newline="")
    packed = name.lower().removesuffix(".gz")
    reader = csv.reader(text, delimiter="\t" if packed.endswith(".tsv") else ",", strict=True)
    width = None
    try:
        for row in reader:
            width = width or len(row)
            if row and len(row) != width:
                raise _malformed(name, "a table", reader.line_num, f"{len(row)} cells where the header has {width}")
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise _malformed(name, "a table", reader.line_num, str(error)) from error


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _malformed(name, "UTF-8 text", line, f"byte {data[error.start]:#04x}") from error


def _malformed(name: str, wanted: str, line: int, reason: str) -> RuleError:
    place = Where(name, line)
    return RuleError(
        f"{name} is not {wanted}", [("file", place), ("error", reason)], ["mend the file or what makes it"]
    )

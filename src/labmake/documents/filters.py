"""How values look in a document: numbers with so many digits, tables in pandoc's Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from labmake.errors import RuleError

NARROW = "\u202f"
MINUS = "\u2212"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


class Cell(float):
    """A number of a CSV: counts and compares as a number, is printed as it was written (`0.930`, `007`)."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Cell:
        cell = super().__new__(cls, text)
        cell.text = text
        return cell

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return self.text == other if isinstance(other, str) else float(self) == other

    def __hash__(self) -> int:
        return hash(float(self))


def cells(value: Any) -> Any:
    """`value`; rows of text (a CSV) with numbers as Cell and empty cells, which are missing values, as None."""
    rows = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    if not rows or not all(one is None or isinstance(one, str) for row in value for one in row.values()):
        return value
    return [{key: _cell(text) for key, text in row.items()} for row in value]


def _cell(text: str | None) -> object:
    if text is None or not text.strip():
        return None
    return Cell(text.strip()) if _NUMBER.fullmatch(text.strip()) else text


def checked(value: object) -> object:
    """`value` if it can stand in a sentence. Raises RuleError for None, NaN, infinity, lists and tables."""
    if value is None:
        raise RuleError(
            "a value is missing: it is empty in the file",
            todo=["say what to show instead: {{ x | default('–', true) }}"],
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise RuleError(f"a value is not a number: it is {float(value)} in the file")
    if isinstance(value, Mapping):
        raise RuleError(
            "this is a whole table of values, not one value",
            [("its keys", listed(value))],
            "name one of them with a dot",
        )
    if isinstance(value, list | tuple):
        raise RuleError(
            f"this is a list of {len(value)} elements, not one value",
            todo=["fill it in with `| table` or `| join(', ')`"],
        )
    return value


def number(value: Any) -> float:
    """`value` as a finite float. Raises RuleError for anything else."""
    checked(value)
    try:
        if not isinstance(value, bool):
            return float(checked(float(value)))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        pass
    raise RuleError(f"{str(value)!r} is not a number")


def rounded(value: Any, digits: int = 0) -> str:
    """`value` with exactly so many digits after the point: `0.9 | round(2)` is 0.90; never −0.00."""
    text = f"{number(value):.{digits}f}"
    return text.removeprefix("-") if not text.strip("-0.") else text


def thousands(value: Any, digits: int | None = None) -> str:
    """`value` with thin spaces between thousands, unbreakable: 12 345."""
    plain = number(value)
    if digits is not None:
        text = f"{plain:,.{digits}f}"
    elif re.fullmatch(r"[+-]?\d+", str(value)):
        text = f"{int(str(value)):,d}"
    else:
        text = f"{plain:,.0f}" if plain.is_integer() else f"{plain:,}"
    return text.replace(",", NARROW)


def percent(value: Any, digits: int = 1) -> str:
    """A share as percent: `0.9312 | percent` is 93.1%."""
    return f"{rounded(number(value) * 100, digits)}%"


def scientific(value: Any, digits: int = 2) -> str:
    """`value` as 1.30 × 10⁻⁵, unbreakable."""
    mantissa, exponent = f"{number(value):.{digits}e}".split("e")
    return f"{mantissa}\u00a0×\u00a010{str(int(exponent)).translate(_SUPERSCRIPT)}"


def row(rows: Any, **where: object) -> Any:
    """The one row whose columns have the values asked for. Raises RuleError if there is none, or more than one."""
    found = [
        one for one in _rows(rows) if all(key in one and str(one[key]) == str(value) for key, value in where.items())
    ]
    if len(found) == 1:
        return found[0]
    asked = ", ".join(f"{key}={value!r}" for key, value in where.items())
    there = [
        (key, listed(dict.fromkeys(str(one.get(key, "(no such column)")) for one in _rows(rows)))) for key in where
    ]
    raise RuleError(f"{len(found) or 'no'} rows have {asked}, one was asked for", there)


def table(
    rows: Any,
    caption: str = "",
    columns: Sequence[str] = (),
    digits: int | Mapping[str, int] | None = None,
    id: str = "",
    headers: Mapping[str, str] | Sequence[str] = (),
) -> str:
    """Rows as a pipe table: numeric columns to the right, cells taken literally, captions and headers as Markdown.

    `digits` for all columns that are not whole numbers, or by column; `headers` by column or in order; `id` is what
    `@tbl:id` refers to. Raises RuleError for no rows, an unknown column, and for data that are not rows.
    """
    rows = _rows(rows)
    names = list(columns) or list(rows[0])
    for name in names:
        if any(name not in one for one in rows):
            raise RuleError(f"the table has no column {name!r}", [("columns", listed(rows[0]))])
    titles = dict(zip(names, headers, strict=False)) if not isinstance(headers, Mapping) else dict(headers)
    right = {name: all(_numeric(one[name]) for one in rows) for name in names}
    lines = [
        [titles.get(name) or _literal(name) for name in names],
        ["--:" if right[name] else ":--" for name in names],
        *([_shown(one[name], _digits(rows, name, digits)) for name in names] for one in rows),
    ]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if id and not caption:
        raise RuleError("a table with an id needs a caption, for only what has a caption is numbered")
    label = f" {{#{id if id.startswith('tbl:') else f'tbl:{id}'}}}" if id else ""
    return f"\n{text}\n" + (f"\n: {' '.join(caption.split())}{label}\n" if caption else "")


def listed(words: Any, most: int = 8) -> str:
    """The first words of many, as one line."""
    words = [str(word) for word in words]
    return ", ".join(words[:most]) + (f", … ({len(words)} in all)" if len(words) > most else "") if words else "none"


def _rows(rows: Any) -> list[dict[str, Any]]:
    if not isinstance(rows, list) or not all(isinstance(one, dict) for one in rows):
        raise RuleError(
            "only rows make a table: a CSV, or a list of objects in a JSON file", [("this is", type(rows).__name__)]
        )
    if not rows:
        raise RuleError("the table has no rows")
    return rows


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _digits(rows: list[dict[str, Any]], name: str, digits: int | Mapping[str, int] | None) -> int | None:
    if isinstance(digits, Mapping):
        return digits.get(name)
    whole = all(one[name] is None or re.fullmatch(r"[+-]?\d+", str(one[name])) for one in rows)
    return None if whole else digits


def _shown(value: object, digits: int | None) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not _numeric(value):
        return _literal(str(value))
    text = rounded(value, digits) if digits is not None and math.isfinite(number(value)) else str(value)
    return f"{MINUS}{text[1:]}" if text.startswith("-") else text


def _literal(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~^$@\"'&-])", r"\\\1", " ".join(text.split()))


FILTERS = {
    "number": number,
    "percent": percent,
    "round": rounded,
    "row": row,
    "sci": scientific,
    "table": table,
    "thousands": thousands,
}

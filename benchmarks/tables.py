"""What was measured as Markdown: tables with ratios, and the parts of a page that hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from measure import Results, median, ratio, values


@dataclass(frozen=True)
class Column:
    """A column: its title, and the phase and quantity it shows, divided by those of `to` or `to_phase` if given."""

    title: str
    phase: str
    of: str = "seconds"
    to: str = ""
    to_phase: str = ""
    range: bool = False


@dataclass(frozen=True)
class Aim:
    """What is to be reached: the words, what was measured (also in processor seconds), the limit, and the unit."""

    words: str
    measured: float
    limit: float
    unit: str = ""
    least: bool = False
    cpu: float = float("nan")


def number(value: float) -> str:
    """Three digits, or a dash for what was not measured or is nothing to divide by."""
    if isnan(value):
        return "–"
    if value == 0:
        return "0"
    digits = 0 if value >= 99.5 else 1 if value >= 9.95 else 2 if value >= 0.995 else 3
    return f"{value:.{digits}f}"


def cell(results: Results, name: str, column: Column) -> str:
    """A median, with its range if the column shows that, or a ratio of medians."""
    if column.to or column.to_phase:
        base = column.to or name
        return number(ratio(results, name, column.phase, base, column.of, column.to_phase))
    value = median(results, name, column.phase, column.of)
    if column.of == "memory":
        return "< 10" if value == 0 else number(value)
    found = values(results, name, column.phase, column.of)
    ends = f" ({number(min(found))}..{number(max(found))})" if column.range and len(found) > 1 else ""
    return number(value) + ends


def table(first: str, results: Results, columns: Sequence[Column], absent: Mapping[str, str] | None = None) -> str:
    """A row for each contender; one that is absent is named, with the reason."""
    lines = [f"| {first} | " + " | ".join(column.title for column in columns) + " |"]
    lines.append("|---|" + "--:|" * len(columns))
    for name in results:
        lines.append(f"| {name} | " + " | ".join(cell(results, name, column) for column in columns) + " |")
    for name, reason in (absent or {}).items():
        lines.append(f"| {name} | absent: {reason} |" + " |" * (len(columns) - 1))
    return "\n".join(lines)


def aims(all_aims: Sequence[Aim]) -> str:
    """What the project wants to reach, and whether this run did."""
    lines = ["| aim | limit | measured | the same of processor seconds | |", "|---|--:|--:|--:|---|"]
    for aim in all_aims:
        reached = aim.measured >= aim.limit if aim.least else aim.measured <= aim.limit
        cpu = number(aim.cpu) + ("" if isnan(aim.cpu) else aim.unit)
        said = "not measured" if isnan(aim.measured) else "reached" if reached else "**not reached**"
        limit = f"{'≥' if aim.least else '≤'} {aim.limit:g}{aim.unit}"
        lines.append(f"| {aim.words} | {limit} | {number(aim.measured)}{aim.unit} | {cpu} | {said} |")
    return "\n".join(lines)


def replaced(page: str, parts: Mapping[str, str]) -> str:
    """The page with the text between `<!-- NAME -->` and `<!-- end of NAME -->` replaced, for each part it has."""
    for name, text in parts.items():
        between = rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)"
        page = re.sub(between, lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page, flags=re.DOTALL)
    return page

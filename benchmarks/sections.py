"""What each scenario's figures are shown as: its tables, and what of them was aimed at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import chains
import fanout
import hashing
import pysteps
import startup
from measure import Results, median, ratio
from tables import Aim, Column, table


@dataclass(frozen=True)
class Section:
    """A part of the page: its name there, its Markdown, and its aims."""

    name: str
    text: str
    aims: tuple[Aim, ...] = ()


COLD = (
    Column("cold s (min..max)", "cold", range=True),
    Column("÷ make", "cold", to="make"),
    Column("processor s", "cold", "cpu"),
    Column("÷ make", "cold", "cpu", to="make"),
    Column("peak MB", "cold", "memory"),
)

NULL = (
    Column("null, first s", "null first"),
    Column("its processor s", "null first", "cpu"),
    Column("null s (min..max)", "null", range=True),
    Column("÷ make", "null", to="make"),
    Column("÷ ninja", "null", to="ninja"),
    Column("processor s", "null", "cpu"),
    Column("peak MB", "null", "memory"),
)

CHANGED = (
    Column("one changed s (min..max)", "one changed", range=True),
    Column("÷ its null", "one changed", to_phase="null"),
    Column("÷ make", "one changed", to="make"),
    Column("processor s", "one changed", "cpu"),
)

LABMAKES = (chains.WILDCARDS, chains.LOOP)


def chains_section(found: Mapping[int, tuple[Results, dict[str, str]]]) -> Section:
    """For each number of steps the first build, and below it the builds after that."""
    parts = []
    for steps, (results, absent) in found.items():
        words = f"{steps:,} steps".replace(",", " ")
        parts += [table(words, results, COLD, absent), table(words, results, NULL), table(words, results, CHANGED)]
    steps = max(found)
    results = found[steps][0]
    at = f"{steps:,} steps".replace(",", " ")

    def worst(aim: str, limit: float, phase: str, to: str, to_phase: str = "") -> Aim:
        """Of the two ways to write the project the slower one counts."""
        wall, cpu = (
            max(ratio(results, name, phase, to or name, of, to_phase) for name in LABMAKES) for of in ("seconds", "cpu")
        )
        return Aim(aim, wall, limit, cpu=cpu)

    memory = max(median(results, name, phase, "memory") for name in LABMAKES for phase in chains.PHASES)
    return Section(
        "chains",
        "\n\n".join(parts),
        (
            worst(f"first build of {at} ÷ make", 1.3, "cold", "make"),
            worst(f"null build of {at} ÷ ninja", 1, "null", "ninja"),
            worst(f"one changed input among {at} ÷ null build", 3, "one changed", "", "null"),
            Aim(f"peak memory of any build of {at}", memory, 300, " MB"),
        ),
    )


def fanout_section(found: Mapping[int, tuple[Results, dict[str, str]]]) -> Section:
    """For each width the first build and those after it."""
    null = tuple(column for column in NULL if column.to != "ninja")
    parts = []
    for width, (results, absent) in found.items():
        words = f"K = {width:,}".replace(",", " ")
        parts += [table(words, results, COLD, absent), table(words, results, null)]
    width = max(found)
    results = found[width][0]
    shapes = (fanout.FOLDER, fanout.SLICES)
    aims = []
    for name in shapes:
        wall, cpu = (ratio(results, name, "cold", "make", of) for of in ("seconds", "cpu"))
        aims.append(Aim(f"K = {width}, {name}: first build ÷ make", wall, 2, cpu=cpu))
        for phase, words in (("null first", "nothing changed, first time"), ("null", "nothing changed")):
            wall, cpu = (median(results, name, phase, of) for of in ("seconds", "cpu"))
            aims.append(Aim(f"K = {width}, {name}: {words}", wall, 0.3, " s", cpu=cpu))
    return Section("fan-out", "\n\n".join(parts), tuple(aims))


def pysteps_section(found: Mapping[int, tuple[Results, dict[str, str]]]) -> Section:
    """Of each tool what a step takes, which is all without what it takes when nothing has changed."""
    columns = (
        Column("cold s (min..max)", "cold", range=True),
        Column("÷ one process", "cold", to=pysteps.LOOP),
        Column("processor s", "cold", "cpu"),
        Column("null s", "null"),
        Column("peak MB", "cold", "memory"),
    )
    parts = [
        table(f"{n:,} steps".replace(",", " "), results, columns, absent) for n, (results, absent) in found.items()
    ]
    few, many = min(found), max(found)

    def step(name: str, count: int, of: str) -> float:
        return (median(found[count][0], name, "cold", of) - median(found[count][0], name, "null", of)) / count

    faster, cpu = (step(pysteps.SNAKEMAKE, few, of) / step(pysteps.LABMAKE, many, of) for of in ("seconds", "cpu"))
    aims = [Aim("a step of Snakemake's `script:` ÷ a step of labmake", faster, 50, least=True, cpu=cpu)]
    for name in (pysteps.LABMAKE, pysteps.BATCHES):
        loop, loop_cpu = (ratio(found[many][0], name, "cold", pysteps.LOOP, of) for of in ("seconds", "cpu"))
        aims.append(Aim(f"{many} steps, {name} ÷ the same in one process", loop, 2, cpu=loop_cpu))
    return Section("python-steps", "\n\n".join(parts), tuple(aims))


def restoring_section(outputs: int, results: Results) -> Section:
    (name,) = results
    columns = (
        Column("made s (min..max)", "made", range=True),
        Column("restored s (min..max)", "restored", range=True),
        Column("made ÷ restored", "made", to_phase="restored"),
        Column("restoring, processor s", "restored", "cpu"),
        Column("peak MB", "restored", "memory"),
    )
    wall, cpu = (ratio(results, name, "made", name, of, "restored") for of in ("seconds", "cpu"))
    aim = Aim(f"{outputs} deleted outputs: made ÷ restored", wall, 5, least=True, cpu=cpu)
    return Section("restoring", table(f"{outputs} outputs", results, columns), (aim,))


def hashing_section(megabytes: int, results: Results) -> Section:
    columns = (
        Column("s (min..max)", "cold", range=True),
        Column("÷ one thread, one file", "cold", to=hashing.THREAD),
        Column("processor s", "cold", "cpu"),
        Column("peak MB", "cold", "memory"),
    )
    base = median(results, hashing.THREAD, "cold")
    small = median(results, hashing.SMALL, "cold")
    one, two = (
        (median(results, name, "cold") - small) / (median(results, base_of, "cold") if base else float("nan"))
        for name, base_of in ((hashing.ONE, hashing.THREAD), (hashing.TWO, hashing.THREADS))
    )
    return Section(
        "hashing",
        table(f"files of {megabytes} MB", results, columns),
        (
            Aim("one large file, beyond the build of a small one ÷ one thread of sha256", one, 1.1),
            Aim("two at once, the same ÷ two threads of sha256 at once", two, 1.1),
        ),
    )


def startup_section(results: Results) -> Section:
    def beyond(words: str, name: str, limit: float) -> Aim:
        wall, cpu = (
            1000 * (median(results, name, "", of) - median(results, startup.BARE, "", of)) for of in ("seconds", "cpu")
        )
        return Aim(f"{words} beyond the interpreter", wall, limit, " ms", cpu=cpu)

    columns = (
        Column("s (min..max)", "", range=True),
        Column("÷ interpreter", "", to=startup.BARE),
        Column("processor s", "", "cpu"),
    )
    return Section(
        "start-up",
        table("command", results, columns),
        (
            beyond("null build of few steps", startup.FEW, 15),
            beyond("`labmake --help`", startup.HELP, 60),
            beyond("no-op in the example", startup.NOTHING, 100),
        ),
    )

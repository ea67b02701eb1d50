"""The picture of a run: how long each tool took beside make, first build and builds after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from measure import Results, values

PEER, LABMAKE, INK = "#9aa5b1", "#1f6f8b", "#333333"


def draw(to: Path, groups: Mapping[str, tuple[Results, list[str]]]) -> None:
    """For each title a row of panels, one for each phase: a bar with its range for each contender, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "labmake", "font.size": 9, "font.family": "sans-serif"})
    from matplotlib import pyplot

    width = max(len(phases) for _, phases in groups.values())
    heights = [len(results) + 1.6 for results, _ in groups.values()]
    figure, axes = pyplot.subplots(
        len(groups),
        width,
        figsize=(3.1 * width + 1.2, 0.3 * sum(heights) + 0.3),
        squeeze=False,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    for row, (title, (results, phases)) in zip(axes, groups.items(), strict=True):
        for panel in row[len(phases) :]:
            panel.set_visible(False)
        for panel, phase in zip(row, phases, strict=False):
            _panel(panel, results, phase, f"{title}: {phase}", names=panel is row[0])
    figure.savefig(to, metadata={"Date": None} if to.suffix == ".svg" else None, dpi=110)
    pyplot.close(figure)


def _panel(panel, results: Results, phase: str, title: str, *, names: bool) -> None:
    """Bars from the top down in the tables' order, each with its median in figures."""
    from statistics import median

    found = {name: values(results, name, phase) for name in results}
    middle = [median(times) for times in found.values()]
    spread = [
        [m - min(times) for m, times in zip(middle, found.values(), strict=True)],
        [max(times) - m for m, times in zip(middle, found.values(), strict=True)],
    ]
    colours = [LABMAKE if name.startswith("labmake") else PEER for name in found]
    places = range(len(found))
    panel.barh(places, middle, xerr=spread, color=colours, height=0.7, error_kw={"ecolor": INK, "lw": 0.8})
    panel.set_xscale("log")
    panel.set_xlim(min(middle) / 3, max(max(times) for times in found.values()) * 6)
    for place, times, m in zip(places, found.values(), middle, strict=True):
        panel.annotate(
            f"{m:.3g} s", (max(times), place), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK
        )
    panel.set_yticks(places, list(found) if names else [])
    panel.invert_yaxis()
    panel.set_title(title, fontsize=9, loc="left", color=INK)
    panel.tick_params(axis="x", labelsize=7, colors=INK)
    panel.minorticks_off()
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)

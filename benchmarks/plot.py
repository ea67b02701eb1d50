"""The picture of a run: how long each tool took beside make, first build and builds after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from measure import Results, values
from tables import number

PEER, LABMAKE, INK, GUIDE = "#7b8794", "#0b6e99", "#333333", "#e3e6ea"


def draw(to: Path, groups: Mapping[str, tuple[Results, list[str]]]) -> None:
    """For each title a row of panels, one for each phase: a median and its range for each contender, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "labmake", "font.size": 9, "svg.fonttype": "none"})
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
    """Points from the top down in the tables' order: bars would mean nothing on a logarithmic scale."""
    from statistics import median

    found = {name: values(results, name, phase) for name in results}
    least, most = min(map(min, found.values())), max(map(max, found.values()))
    for place, (name, times) in enumerate(found.items()):
        colour = LABMAKE if name.startswith("labmake") else PEER
        panel.axhline(place, color=GUIDE, lw=0.6, zorder=0)
        panel.plot([min(times), max(times)], [place, place], color=colour, lw=2.5, solid_capstyle="round", alpha=0.5)
        panel.plot([median(times)], [place], "o", color=colour, ms=6)
        words = f"{number(median(times))} s"
        at = (max(times), place)
        panel.annotate(words, at, (7, 0), textcoords="offset points", va="center", fontsize=8, color=INK)
    panel.set_xscale("log")
    panel.set_xlim(least / 2, most * (most / least) ** 0.35 * 2)
    panel.set_ylim(-0.7, len(found) - 0.3)
    places = range(len(found))
    panel.set_yticks(places, list(found) if names else [])
    panel.invert_yaxis()
    panel.set_title(title, fontsize=9, loc="left", color=INK)
    panel.tick_params(axis="x", labelsize=7, colors=INK)
    panel.minorticks_off()
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)

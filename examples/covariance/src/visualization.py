"""The figures: one function each, one style for all."""

import matplotlib
import numpy
import pandas
from font_source_sans_pro import font_files_ttf
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from scipy.optimize import isotonic_regression

INK, PALE = "#333333", "#bbbbbb"
COLOURS = {  # after Okabe and Ito: distinct with any form of colour blindness, the orange darkened for text
    "Maximum likelihood": "#cc79a7",
    "Independence": "#56b4e9",
    "OAS": "#8a8a8a",
    "Ledoit–Wolf": "#222222",
    "Identity prior": "#0072b2",
    "Factor prior": "#009e73",
    "Other-group prior": "#d18f00",
    "Other-group prior, integrated": "#d55e00",
    "All patients": "#777777",
}


def canvas(width: float, height: float, **grid) -> tuple[Figure, numpy.ndarray]:
    """An empty figure (inches) in the common style, and its axes in an array of two dimensions."""
    for face in ("SourceSansPro", "SourceSansProSemibold"):
        fontManager.addfont(font_files_ttf[face])
    matplotlib.rcParams.update(
        {
            "font.family": "Source Sans Pro",
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9,
            "axes.titlelocation": "left",
            "axes.titleweight": "semibold",
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "lines.linewidth": 1.6,
            "lines.solid_capstyle": "round",
        }
    )
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(squeeze=False, **grid)


def training_axis(axes: Axes, sizes: list, label: str = "Training patients (logarithmic)") -> None:
    """A logarithmic axis with a tick at each training size."""
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes], minor=False)
    axes.xaxis.minorticks_off()
    axes.set_xlabel(label)


def name_lines(axes: Axes, ends: dict[str, float], gap: float) -> None:
    """Names beside the right ends of lines, as near to them as a distance of `gap` (axes fractions) allows."""
    names = sorted(ends, key=ends.__getitem__)
    to_fraction = axes.transData + axes.transAxes.inverted()
    heights = numpy.array([to_fraction.transform((1, ends[name]))[1] for name in names])
    steps = gap * numpy.arange(len(names))
    for name, height in zip(names, isotonic_regression(heights - steps).x + steps, strict=True):
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(name, (1, height), (6, 0), color=COLOURS[name], va="center", **place)


def learning(results: pandas.DataFrame) -> Figure:
    """Held-out log density against training size: the mean over splits ± two standard errors."""
    figure, ((axes,),) = canvas(6.3, 3.8)
    sizes, lowest = sorted(results["train"].unique()), 10
    ends, below = {}, []
    for name, part in results.groupby("estimator"):
        score = part.groupby("train")["score"].agg(["mean", "sem"])
        if score["mean"].max() < lowest:
            below.append(f"{name} (at most {score['mean'].max():.0f})")
            continue
        low, high = score["mean"] - 2 * score["sem"], score["mean"] + 2 * score["sem"]
        axes.fill_between(score.index, low, high, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.plot(score.index, score["mean"], color=COLOURS[name])
        ends[name] = score["mean"].iloc[-1]
    training_axis(axes, sizes)
    axes.set(xlim=(sizes[0], sizes[-1]), ylim=(lowest, 45), ylabel="Held-out log density (nats per patient)")
    name_lines(axes, ends, gap=0.05)
    axes.text(0.99, 0.03, f"below the axis: {', '.join(below)}", transform=axes.transAxes, ha="right")
    return figure


def differences(results: pandas.DataFrame) -> Figure:
    """Gain over Ledoit–Wolf on the same split: a thin line for each split, a bold one for their mean."""
    figure, panels = canvas(6.3, 4.2, nrows=2, ncols=3, sharex=True, sharey=True)
    scores = results.pivot(index=["split", "train"], columns="estimator", values="score")
    gains = scores.sub(scores["Ledoit–Wolf"], axis=0)
    names = [name for name in COLOURS if name in gains and name not in ("Ledoit–Wolf", "Independence")]
    for axes, name in zip(panels.flat, names, strict=True):
        gain = gains[name].unstack("split")
        axes.axhline(0, color=INK, linewidth=0.6)
        axes.plot(gain.index, gain, color=COLOURS[name], linewidth=0.5, alpha=0.5)
        axes.plot(gain.index, gain.mean(axis=1, skipna=False), color=COLOURS[name], linewidth=2)
        axes.set_title(name, color=COLOURS[name])
        training_axis(axes, [15, 30, 60, 120, 240], "")
        axes.set(xlim=(15, 240), ylim=(-12, 24))
    panels[0, 0].annotate("Ledoit–Wolf", (15, 0), (3, 3), textcoords="offset points")
    figure.supylabel("Gain over Ledoit–Wolf (nats per patient)", fontsize=9)
    figure.supxlabel("Training patients (logarithmic)", fontsize=9)
    return figure


def spectrum(spectrum: pandas.DataFrame) -> Figure:
    """Eigenvalues by rank: how much variance each estimator grants to the directions that vary least."""
    figure, ((axes,),) = canvas(6.3, 3.6)
    ranks = spectrum["rank"] + 1
    names = ["All patients", "Maximum likelihood", "Ledoit–Wolf", "Identity prior", "Other-group prior"]
    for name in names:
        reference = name == "All patients"
        axes.plot(ranks, spectrum[name], color=PALE if reference else COLOURS[name], linewidth=5 if reference else 1.6)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.minorticks_off()
    axes.set_xticks([1, 5, 10, 15, 20, 25, 30])
    axes.set(xlim=(1, len(ranks)), xlabel="Rank of the eigenvalue", ylabel="Eigenvalue (standardised units)")
    name_lines(axes, {name: spectrum[name].iloc[-1] for name in names}, gap=0.055)
    return figure


def calibration(results: pandas.DataFrame, size: int) -> Figure:
    """Share of held-out patients within each ellipsoid against the share that belongs there; bands as in `learning`."""
    figure, ((axes,),) = canvas(5.2, 3.4)
    part = results[results["train"] == size].set_index("estimator")
    columns = [column for column in results if column.startswith("inside_")]
    nominal = [int(column.removeprefix("inside_")) for column in columns]
    axes.plot([0, 100], [0, 100], color=PALE, linewidth=1)
    ends = {}
    for name in ["Maximum likelihood", "Ledoit–Wolf", "Identity prior", "Other-group prior, integrated"]:
        inside = part.loc[name, columns] * 100
        mean, error = inside.mean(), inside.sem()
        axes.fill_between(nominal, mean - 2 * error, mean + 2 * error, color=COLOURS[name], alpha=0.2, linewidth=0)
        axes.plot(nominal, mean, color=COLOURS[name])
        ends[name] = mean.iloc[-1]
    axes.text(25, 92, "ellipsoids too wide", ha="center", color="#777777")
    axes.text(75, 5, "ellipsoids too narrow", ha="center", color="#777777")
    axes.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
    axes.set(xlabel="Should be inside (%)", ylabel="Held-out patients inside (%)")
    name_lines(axes, ends, gap=0.06)
    return figure


def correlations(group: pandas.DataFrame, prior: pandas.DataFrame, below: str, above: str) -> Figure:
    """Correlations of two groups of patients: one below, the other above the diagonal."""
    figure, ((axes,),) = canvas(6.3, 5.4)
    lower, upper = (table.set_index("measurement") for table in (group, prior))
    both = numpy.tril(lower, -1) + numpy.triu(upper, 1)
    numpy.fill_diagonal(both, numpy.nan)
    mesh = axes.pcolormesh(both, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=0.3)
    statistics, quantities = zip(*(name.split("_", 1) for name in lower.index), strict=True)
    names = [name.replace("_", " ") for name in quantities]
    axes.set_xticks(numpy.arange(len(names)) + 0.5, names, fontsize=6.5, rotation=90)
    axes.set_yticks(numpy.arange(len(names)) + 0.5, names, fontsize=6.5)
    for statistic in dict.fromkeys(statistics):
        first, number = statistics.index(statistic), statistics.count(statistic)
        axes.text(first + number / 2, -0.4, statistic, ha="center", weight="semibold")
        axes.text(30.4, first + number / 2, statistic, va="center", weight="semibold", rotation=270)
        axes.axhline(first, color="white", linewidth=3)
        axes.axvline(first, color="white", linewidth=3)
    axes.set_title(f"{below.capitalize()} patients below the diagonal, {above} above", pad=18)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.5, ticks=[-1, -0.5, 0, 0.5, 1], label="Correlation")
    bar.outline.set_visible(False)
    return figure

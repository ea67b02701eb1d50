"""Which prior on the covariance matrix predicts best out of sample?"""

import numpy
import pandas
from labmake import each, py, rule, sh, source

GROUP, OTHER = "benign", "malignant"
SIZES = [15, 20, 30, 45, 60, 90, 120, 180, 240]
FOCUS = 60
LEVELS = [5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99]
SETTINGS = {
    "strengths": [0.01, 0.03, 0.1, 0.3, 1, 2, 3, 5, 8, 12, 17, 24, 34, 48, 68, 96, 136, 192, 272, 544],
    "folds": 5,
    "factors": 4,
}

source("data/raw.csv", "package:sklearn/datasets/data/breast_cancer.csv")

rule("data/measurements.csv", raw="data/raw.csv", run=sh("awk -f ./tidy.awk {raw} > {out}"))

rule(
    "data/features.csv",
    measurements="data/measurements.csv",
    run=py("src/data_engineering.py:transform", with_zeros=["concavity", "concave_points"]),
)

# The prior's location comes from patients of whom none is ever predicted.
rule("data/prior.csv", features="data/features.csv", run=py("src/model.py:correlation", group=OTHER))

rule("data/group.csv", features="data/features.csv", run=py("src/model.py:correlation", group=GROUP))

rule("data/splits.json", run=py("script.py:splits", number=20, held_out=117, first_seed=20231007))

# One target for each element of splits.json: how many is known once that file is made.
rule(
    "data/fits/{split}.csv",
    features="data/features.csv",
    prior="data/prior.csv",
    draw="data/splits.json#{split}",
    run=py("src/model.py:fit", group=GROUP, sizes=SIZES, levels=LEVELS, settings=SETTINGS),
)

rule(
    "data/spectrum.csv",
    features="data/features.csv",
    prior="data/prior.csv",
    draw="data/splits.json#0",
    run=py("src/model.py:spectrum", group=GROUP, size=FOCUS, settings=SETTINGS),
)

rule(
    "data/table.csv",
    results="data/results.csv",
    run=py("script.py:table", sizes=[20, 45, 90, 240]),
)

rule(
    "data/summary.json",
    features="data/features.csv",
    results="data/results.csv",
    spectrum="data/spectrum.csv",
    draw="data/splits.json#0",
    run=py("script.py:summary", group=GROUP, focus=FOCUS, few=20, settings=SETTINGS),
)

rule(
    "figures/correlations.svg",
    group="data/group.csv",
    prior="data/prior.csv",
    run=py("src/visualization.py:correlations", below=GROUP, above=OTHER),
)
rule("figures/learning.svg", results="data/results.csv", run=py("src/visualization.py:learning"))
rule("figures/differences.svg", results="data/results.csv", run=py("src/visualization.py:differences"))
rule("figures/spectrum.svg", spectrum="data/spectrum.csv", run=py("src/visualization.py:spectrum"))
rule("figures/calibration.svg", results="data/results.csv", run=py("src/visualization.py:calibration", size=FOCUS))


def splits(number: int, held_out: int, first_seed: int) -> list:
    """Random divisions of the patients; a larger `number` adds divisions and changes none."""
    return [{"seed": first_seed + split, "held_out": held_out} for split in range(number)]


@rule("data/results.csv", fits=each("data/fits/{split}.csv", split="data/splits.json"))
def collect(fits: dict[str, pandas.DataFrame]) -> pandas.DataFrame:
    """All fits in one table, with the split that each row comes from."""
    return pandas.concat([fit.assign(split=split) for split, fit in fits.items()], ignore_index=True)


def table(results: pandas.DataFrame, sizes: list) -> pandas.DataFrame:
    """Mean held-out log density ± standard error over splits: estimators, the best last, by training size."""
    scores = results.pivot(index="split", columns=["estimator", "train"], values="score")
    order = results.groupby("estimator")["score"].median().sort_values().index
    rows = []
    for name in order:
        row = {"Estimator": name}
        for size in sizes:
            seen = scores.get((name, size))
            cell = "singular" if seen is None else f"{seen.mean():.1f} ± {seen.sem():.1f}"
            row[f"n = {size}"] = cell.replace("-", "−")
        rows.append(row)
    return pandas.DataFrame(rows)


def gain(scores: pandas.DataFrame, name: str, other: str, size: int) -> dict:
    """How much better one estimator predicts than another on the same splits: mean, standard error, splits won."""
    difference = scores[name, size] - scores[other, size]
    return {"over": other, "mean": difference.mean(), "error": difference.sem(), "won": int((difference > 0).sum())}


def summary(
    features: pandas.DataFrame,
    results: pandas.DataFrame,
    spectrum: pandas.DataFrame,
    draw: dict,
    group: str,
    focus: int,
    few: int,
    settings: dict,
) -> dict:
    """The numbers that the report quotes."""
    scores = results.pivot(index="split", columns=["estimator", "train"], values="score")
    means = scores.mean().unstack()
    best = means.idxmax()
    many = max(means.columns)
    plain, winner = "Other-group prior", best[focus]
    # How many patients the identity prior needs to predict as well as the best estimator does with few.
    needed = numpy.exp(numpy.interp(means.loc[winner, few], means.loc["Identity prior"], numpy.log(means.columns)))
    likelihood = means.loc["Maximum likelihood"]
    worth = results.groupby(["estimator", "train"])["strength"].median()
    inside = results[results["train"] == focus].groupby("estimator")[["inside_50", "inside_90"]].mean()
    smallest = spectrum.iloc[-1] / spectrum["All patients"].iloc[-1]
    return {
        "patients": {"all": len(features), **features["group"].value_counts(), "held_out": draw["held_out"]},
        "measurements": features.shape[1] - 2,
        "group": group,
        "splits": len(scores),
        "folds": settings["folds"],
        "factors": settings["factors"],
        "strengths": {
            "number": len(settings["strengths"]),
            "smallest": min(settings["strengths"]),
            "largest": max(settings["strengths"]),
        },
        "sizes": {"number": len(best), "smallest": min(best.index), "few": few, "focus": focus, "many": many},
        "best": {"name": winner, "score": means.loc[winner, focus], "sizes_won": int((best == winner).sum())},
        "best_by_size": {f"n{size}": best[size] for size in best.index},
        "gain": gain(scores, winner, "Ledoit–Wolf", focus),
        "prior_gain": {
            name: gain(scores, plain, "Identity prior", n) for name, n in [("focus", focus), ("many", many)]
        },
        "integrating": {name: gain(scores, winner, plain, n) for name, n in [("few", few), ("many", many)]},
        "identity_needs": round(needed),
        "likelihood": {
            "defined_from": likelihood.first_valid_index(),
            "overtakes_from": (likelihood > means.loc["Ledoit–Wolf"]).idxmax(),
            "gain": gain(scores, "Maximum likelihood", "Ledoit–Wolf", many),
        },
        "worth": {"few": worth[plain, few], "focus": worth[plain, focus], "many": worth[plain, many]},
        "identity_worth": {"few": worth["Identity prior", few], "focus": worth["Identity prior", focus]},
        "inside": {
            "ledoit_wolf": inside.loc["Ledoit–Wolf"].to_dict(),
            "likelihood": inside.loc["Maximum likelihood"].to_dict(),
            "best": inside.loc[winner].to_dict(),
        },
        "smallest": {
            "ledoit_wolf": smallest["Ledoit–Wolf"],
            "identity": smallest["Identity prior"],
            "prior": smallest[plain],
            "likelihood": smallest["Maximum likelihood"],
        },
    }

"""Which patients a step sees: one group of them, and its division into training and held-out patients."""

import numpy
import pandas


def of_group(features: pandas.DataFrame, group: str) -> pandas.DataFrame:
    """The measurements of the patients of one group: one row per patient, one column per measurement."""
    chosen = features[features["group"] == group]
    return chosen.drop(columns="group").set_index("patient")


def hold_out(patients: pandas.DataFrame, draw: dict) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Training and held-out patients, (rows, measurements) each, as the draw (its seed, how many held out) says.

    The training patients are in random order, so the first n of them are a random training set of size n, and every
    training set lies within the larger ones of the same draw.
    """
    order = numpy.random.default_rng(draw["seed"]).permutation(len(patients))
    values = patients.to_numpy()[order]
    return values[draw["held_out"] :], values[: draw["held_out"]]

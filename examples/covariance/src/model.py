"""Estimators of a covariance matrix, and how well each predicts patients that it has not seen.

All matrices are in standardised coordinates: the training patients have mean 0 and variance 1 in every measurement.
"""

from collections.abc import Callable

import numpy
import pandas
from scipy.special import chdtr, fdtr, gammaln
from sklearn.covariance import ledoit_wolf, oas

from data_access import hold_out, of_group
from data_engineering import standardise

Location = Callable[[numpy.ndarray], numpy.ndarray]
"""Where a prior sits: from the sample's covariance to the matrix that the estimate is drawn towards."""


def correlation(features: pandas.DataFrame, group: str) -> pandas.DataFrame:
    """The correlation matrix of one group's measurements; the first column names the rows."""
    return of_group(features, group).corr().round(6).rename_axis("measurement").reset_index()


def factor_model(sample: numpy.ndarray, factors: int) -> numpy.ndarray:
    """The part of `sample` that a few factors carry (probabilistic PCA), and a diagonal that makes it a correlation."""
    values, vectors = numpy.linalg.eigh(sample)
    noise = values[:-factors].mean()
    loadings = vectors[:, -factors:] * numpy.sqrt(values[-factors:] - noise)
    shared = loadings @ loadings.T
    return shared + numpy.diag(1 - numpy.diag(shared))


def scatter(rows: numpy.ndarray) -> numpy.ndarray:
    """The maximum-likelihood covariance of rows whose mean is 0."""
    return rows.T @ rows / len(rows)


def posterior_mean(rows: numpy.ndarray, location: Location, strength: float) -> numpy.ndarray:
    """The mean covariance after `rows`, under an inverse-Wishart prior that is worth `strength` patients."""
    sample = scatter(rows)
    weight = strength / (strength + len(rows))
    return weight * location(sample) + (1 - weight) * sample


def distances(rows: numpy.ndarray, covariance: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    """Squared Mahalanobis distance of each row from 0, and the log determinant of the covariance."""
    root = numpy.linalg.cholesky(covariance)
    return (numpy.linalg.solve(root, rows.T) ** 2).sum(axis=0), 2 * float(numpy.log(numpy.diag(root)).sum())


def gaussian(rows: numpy.ndarray, covariance: numpy.ndarray) -> tuple[float, numpy.ndarray]:
    """Mean log density of the rows under N(0, covariance) in nats; for each, the probability nearer to the centre."""
    squares, determinant = distances(rows, covariance)
    size = len(covariance)
    return float(-0.5 * (size * numpy.log(2 * numpy.pi) + determinant + squares.mean())), chdtr(size, squares)


def student(rows: numpy.ndarray, mean: numpy.ndarray, seen: int, strength: float) -> tuple[float, numpy.ndarray]:
    """As `gaussian`, under the posterior predictive density: a multivariate t (Gelman et al. 2013, section 3.6).

    `mean` is the posterior mean after `seen` patients under a prior worth `strength`; the location's prior is flat.
    """
    size, freedom = len(mean), strength + seen + 1
    squares, determinant = distances(rows, mean * (strength + seen) / freedom * (1 + 1 / seen))
    score = gammaln((freedom + size) / 2) - gammaln(freedom / 2) - 0.5 * size * numpy.log(freedom * numpy.pi)
    score -= 0.5 * (determinant + (freedom + size) * numpy.log1p(squares / freedom).mean())
    return float(score), fdtr(size, freedom, squares / size)


def best_strength(train: numpy.ndarray, location: Location, strengths: list, folds: int) -> float:
    """The strength with which the other folds of the training patients predict each fold best."""
    scores = numpy.zeros(len(strengths))
    for fold in range(folds):
        left_out = numpy.arange(len(train)) % folds == fold
        (fitted, tested), _ = standardise(train[~left_out], train[left_out])
        scores += [gaussian(tested, posterior_mean(fitted, location, strength))[0] for strength in strengths]
    return strengths[int(scores.argmax())]


def estimates(train: numpy.ndarray, elsewhere: numpy.ndarray, strengths: list, folds: int, factors: int) -> dict:
    """Estimator → (covariance, what its prior is worth in patients or None). A singular one is left out."""
    (rows,), _ = standardise(train)
    locations = {
        "Identity prior": lambda sample: numpy.eye(len(sample)),
        "Factor prior": lambda sample: factor_model(sample, factors),
        "Other-group prior": lambda sample: elsewhere,
    }
    found = {
        "Maximum likelihood": (scatter(rows), None),
        "Independence": (numpy.eye(rows.shape[1]), None),
        "OAS": (oas(rows, assume_centered=True)[0], None),
        "Ledoit–Wolf": (ledoit_wolf(rows, assume_centered=True)[0], None),
    }
    if numpy.linalg.matrix_rank(rows) < rows.shape[1]:
        del found["Maximum likelihood"]
    for name, location in locations.items():
        strength = best_strength(train, location, strengths, folds)
        found[name] = posterior_mean(rows, location, strength), strength
    return found


def fit(
    features: pandas.DataFrame,
    prior: pandas.DataFrame,
    draw: dict,
    group: str,
    sizes: list,
    levels: list,
    settings: dict,
) -> pandas.DataFrame:
    """One row per training size and estimator: its mean held-out log density, in nats per patient, and calibration.

    `strength` is what the prior was found to be worth in patients. `inside_<level>` is the share of held-out patients
    in the ellipsoid that should hold `level` percent. A singular estimate has no density and therefore no row.
    """
    train, held_out = hold_out(of_group(features, group), draw)
    table = []
    for size in sizes:
        (_, tested), log_deviation = standardise(train[:size], held_out)
        densities = {}
        for name, (covariance, strength) in estimates(train[:size], matrix(prior), **settings).items():
            densities[name] = gaussian(tested, covariance), strength
            if name == "Other-group prior":
                densities[f"{name}, integrated"] = student(tested, covariance, size, strength), strength
        for name, ((score, probability), strength) in densities.items():
            inside = {f"inside_{level}": (probability <= level / 100).mean() for level in levels}
            table.append(
                {"train": size, "estimator": name, "score": score - log_deviation, "strength": strength} | inside
            )
    return pandas.DataFrame(table).round(6)


def spectrum(
    features: pandas.DataFrame, prior: pandas.DataFrame, draw: dict, group: str, size: int, settings: dict
) -> pandas.DataFrame:
    """Eigenvalues, the largest first, of the estimates from the first `size` training patients of one draw.

    "All patients" is the covariance of the whole group in the same coordinates: not the truth, but the nearest to it.
    """
    patients = of_group(features, group)
    train, _ = hold_out(patients, draw)
    (_, everybody), _ = standardise(train[:size], patients.to_numpy())
    matrices = {name: found for name, (found, _) in estimates(train[:size], matrix(prior), **settings).items()}
    matrices["All patients"] = numpy.cov(everybody, rowvar=False)
    columns = {name: numpy.linalg.eigvalsh(found)[::-1] for name, found in matrices.items()}
    return pandas.DataFrame(columns).round(8).rename_axis("rank").reset_index()


def matrix(table: pandas.DataFrame) -> numpy.ndarray:
    """The numbers of a correlation matrix that `correlation` wrote."""
    return table.set_index("measurement").to_numpy()

"""From raw measurements to the coordinates in which the covariance is estimated."""

import numpy
import pandas


def transform(measurements: pandas.DataFrame, with_zeros: list) -> pandas.DataFrame:
    """Logarithms of all measurements; cube roots of the quantities in `with_zeros`, which may be exactly 0.

    Neither has a parameter that is learned, so no held-out patient can leak into a fit through them.
    """
    result = measurements.copy()
    for column in measurements.columns.difference(["patient", "group"]):
        quantity = column.split("_", 1)[1]
        result[column] = (numpy.cbrt if quantity in with_zeros else numpy.log)(measurements[column]).round(6)
    return result


def standardise(train: numpy.ndarray, *others: numpy.ndarray) -> tuple[list[numpy.ndarray], float]:
    """All arrays with the mean and standard deviation of `train` taken out, and the sum of its log deviations.

    That sum is what a log density in standardised coordinates has too much, in nats per patient.
    """
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    return [(rows - mean) / deviation for rows in (train, *others)], float(numpy.log(deviation).sum())

"""The standard error of a mean of per-record values that come in cells, summed exactly, so that the order of records never matters."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean(counts: Floats, values: Floats) -> float:
    """The mean over records of the cells' means (m,). ``math.fsum`` rounds once, whatever the order.

    >>> mean(np.array([1.0, 3.0]), np.array([4.0, 0.0]))
    1.0
    """
    return math.fsum(counts * values) / math.fsum(counts)


def std_error(counts: Floats, values: Floats, variances: Floats | float) -> float:
    """The standard error of that mean, from cells' means (m,) and variances (m,) within: squares within and between add up.

    Source: the analysis of variance (Fisher, *Statistical Methods for Research Workers*, 1925, chapter 7).
    """
    n = math.fsum(counts)
    within = math.fsum(np.maximum(counts - 1.0, 0.0) * variances)
    between = math.fsum(counts * (values - mean(counts, values)) ** 2)
    return math.sqrt((within + between) / (n - 1.0) / n)

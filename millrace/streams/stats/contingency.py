"""Whether two ways to sort units have to do with each other, such as the variant and an outcome with several values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from scipy.special import chdtrc

from millrace.schemas.evidence import CannotTell

Table = Sequence[Sequence[int]] | npt.NDArray[np.int64]


class Contingency(Struct, frozen=True, kw_only=True):
    """Pearson's test of a table, and how strong the association is: Cramer's V, 0 for none to 1."""

    statistic: float
    degrees: int
    p_value: float
    cramers_v: float


def chi_square(table: Table) -> Contingency | CannotTell:
    """The test of independence of a table of counts (rows, columns), without continuity correction. Empty rows and columns are left out.

    Refused where the statistic is not chi-square: an expected count below 1, or more than a fifth of them below 5. Raises ValueError on
    what is not a table of counts. Sources: Pearson, Phil. Mag. 1900; Cochran, Biometrics 1954 (when to refuse); Cramer, *Mathematical
    Methods of Statistics*, 1946, chapter 21.

    >>> told = chi_square([[20, 30], [30, 20]])
    >>> told.statistic, told.degrees, told.cramers_v
    (4.0, 1, 0.2)
    """
    counts = np.asarray(table, dtype=np.float64)
    if counts.ndim != 2 or bool(np.any(counts < 0)):
        raise ValueError("give rows of equal length of counts, none below 0")
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    rows, columns = counts.shape
    if min(rows, columns) < 2:
        return CannotTell("the table has fewer than two rows or columns with units in them: there is nothing to compare")
    units = float(counts.sum())
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / units
    if float(expected.min()) < 1.0 or float(np.mean(expected < 5.0)) > 0.2:
        return CannotTell(
            f"too few units: {int(np.sum(expected < 5.0))} of {expected.size} cells expect fewer than 5, the least {expected.min():.3g};"
            " put rows or columns together"
        )
    statistic = float(np.sum((counts - expected) ** 2 / expected))
    degrees = (rows - 1) * (columns - 1)
    return Contingency(
        statistic=statistic,
        degrees=degrees,
        p_value=float(chdtrc(degrees, statistic)),
        cramers_v=math.sqrt(statistic / (units * (min(rows, columns) - 1))),
    )

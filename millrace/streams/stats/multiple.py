"""Several tests at once, over metrics and variants: corrected p-values, and the levels of intervals that go with them.

Leave out what cannot be told: the family is the tests that were made.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from millrace.schemas.experiment import Correction

Floats = npt.NDArray[np.float64]


def corrected(p_values: Sequence[float], correction: Correction) -> list[float]:
    """The p-values (k,), each corrected for all of them, in the order given.

    Bonferroni and Holm bound the chance of any false rejection, Benjamini-Hochberg the expected share of false ones among the rejected
    (if tests are independent or positively dependent). Raises ValueError on what is not a p-value. Sources: Dunn, JASA 1961; Holm,
    Scand. J. Statist. 1979; Benjamini and Hochberg, JRSS B 1995.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not bool(np.all((p >= 0.0) & (p <= 1.0))):
        raise ValueError(f"p-values are between 0 and 1, not {list(p_values)}")
    match correction:
        case Correction.NONE:
            return [float(value) for value in p]
        case Correction.BONFERRONI:
            return bonferroni(p)
        case Correction.HOLM:
            return holm(p)
        case Correction.BENJAMINI_HOCHBERG:
            return benjamini_hochberg(p)


def bonferroni(p_values: Sequence[float] | Floats) -> list[float]:
    """Each p-value times how many there are (Dunn, JASA 1961).

    >>> bonferroni([0.01, 0.5, 0.25])
    [0.03, 1.0, 0.75]
    """
    p = np.asarray(p_values, dtype=np.float64)
    return _floats(np.minimum(1.0, p * len(p)))


def holm(p_values: Sequence[float] | Floats) -> list[float]:
    """Step down: the i-th smallest times k - i + 1, and never less than one before it (Holm, Scand. J. Statist. 1979).

    >>> [round(p, 12) for p in holm([0.01, 0.04, 0.03, 0.005, 0.55, 0.6])]
    [0.05, 0.12, 0.12, 0.03, 1.0, 1.0]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _floats(_in_order_given(np.minimum(1.0, stepped), order))


def benjamini_hochberg(p_values: Sequence[float] | Floats) -> list[float]:
    """Step up: the i-th smallest times k / i, and never more than one after it (Benjamini and Hochberg, JRSS B 1995)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = p[order] * (len(p) / np.arange(1, len(p) + 1))
    stepped = np.minimum.accumulate(raised[::-1])[::-1]
    return _floats(_in_order_given(np.minimum(1.0, stepped), order))


def interval_level(p_values: Sequence[float], alpha: float, correction: Correction) -> float:
    """The alpha at which each test's interval is computed, so that the intervals go with ``corrected``. One level for all of them.

    Bonferroni: alpha / k. All intervals cover together with probability 1 - alpha (Dunn, JASA 1961), and leave out 0 just where the test
    rejects. Holm: alpha / k as well. They cover together; one that leaves out 0 is rejected, but Holm may reject where the interval
    still has 0. Rejected: stepping the level with the rank, which does not cover together, and Strassburger and Bretz' compatible bounds
    (Statistics in Medicine 2008), which say no more of a rejected effect than its sign unless all are rejected.
    Benjamini-Hochberg: alpha max(R, 1) / k with R rejected (Benjamini and Yekutieli, *False Discovery Rate-Adjusted Multiple Confidence
    Intervals*, JASA 2005): of the rejected effects' intervals at most alpha miss, expected; each leaves out 0 just where it is rejected.
    """
    k = len(p_values)
    if k == 0:
        return alpha
    match correction:
        case Correction.NONE:
            return alpha
        case Correction.BONFERRONI | Correction.HOLM:
            return alpha / k
        case Correction.BENJAMINI_HOCHBERG:
            rejected = sum(p <= alpha for p in benjamini_hochberg(p_values))
            return alpha * max(rejected, 1) / k


def _in_order_given(values: Floats, order: npt.NDArray[np.intp]) -> Floats:
    back = np.empty_like(values)
    back[order] = values
    return back


def _floats(values: Floats) -> list[float]:
    return [float(value) for value in values]

"""The difference between two arms at a fixed horizon, with its standard error, or why there is none."""

from __future__ import annotations

from millrace.schemas.evidence import CannotTell, Kind
from millrace.streams.stats.arm import arm, contrast
from millrace.streams.stats.cuped import adjusted
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.summary import Summary


def difference(control: Summary, treatment: Summary, kind: Kind, relative: Difference, *, adjust: bool = False) -> Effect | CannotTell:
    """Treatment less control, absolute or as a share of the control's mean; ``adjust`` takes out what the covariate explains (CUPED).

    Sources: Welch, Biometrika 1947 (means); Deng, Knoblich, Lu, KDD 2018, arXiv 1803.06336 (ratios and lifts by the delta method);
    Deng et al., WSDM 2013 (CUPED).

    >>> from millrace.streams.stats.summary import Totals, of_totals
    >>> left, right = of_totals(Totals(n=28, total=14)), of_totals(Totals(n=30, total=16))
    >>> told = difference(left, right, Kind.PROPORTION, Difference.RELATIVE)
    >>> round(told.effect, 5), round(told.std_error, 5)
    (0.06667, 0.2717)
    """
    if adjust:
        return adjusted(control, treatment, kind, relative)
    left, right = arm("control", control, kind), arm("treatment", treatment, kind)
    if isinstance(left, CannotTell):
        return left
    if isinstance(right, CannotTell):
        return right
    return contrast(left, right, relative)

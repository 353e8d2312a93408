"""One arm's means, variances and covariances, computed without cancellation from its sums."""

from __future__ import annotations

from fractions import Fraction

from msgspec import Struct

from millrace.schemas.evidence import Moments

ROUNDING = Fraction(1, 2**50)
"""A few units in the last place of a double."""


class Summary(Struct, frozen=True, kw_only=True):
    """One arm: number of units, and the sample moments of value y, denominator z and covariate x, in the metric's own units.

    Variances and covariances have the denominator n - 1; they are 0 for fewer than two units.
    """

    n: int
    mean: float
    variance: float
    denominator_mean: float = 0.0
    denominator_variance: float = 0.0
    covariance: float = 0.0
    """Of y and z."""
    covariate_mean: float = 0.0
    covariate_variance: float = 0.0
    covariate_covariance: float = 0.0
    """Of y and x."""

    @property
    def total(self) -> float:
        """The sum of y."""
        return self.n * self.mean


class Totals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sums over units as a person writes them down, in the metric's own units."""

    n: int
    total: float = 0.0
    squares: float = 0.0
    denominator_total: float = 0.0
    denominator_squares: float = 0.0
    cross: float = 0.0
    covariate_total: float = 0.0
    covariate_squares: float = 0.0
    covariate_cross: float = 0.0


def of_moments(moments: Moments, resolution: float = 1.0, denominator_resolution: float = 1.0) -> Summary:
    """An arm's summary from whole steps. The covariate has the value's resolution.

    >>> of_moments(Moments.of(1) + Moments.of(2) + Moments.of(3), 0.5)
    Summary(n=3, mean=1.0, variance=0.25, denominator_mean=0.0, denominator_variance=0.0, covariance=0.0, covariate_mean=0.0, \
covariate_variance=0.0, covariate_covariance=0.0)
    """
    y, z = _step(resolution), _step(denominator_resolution)
    return of_totals(moments, y, z)


def of_totals(sums: Moments | Totals, y: Fraction = Fraction(1), z: Fraction = Fraction(1)) -> Summary:
    """An arm's summary from its sums, in steps of ``y`` and ``z``. The arithmetic is exact until one division at the end.

    Source: the textbook formula, (sum y^2 - (sum y)^2 / n) / (n - 1), which only exact arithmetic may use (Chan, Golub and LeVeque, *The
    American Statistician* 1983).

    What a person writes down are doubles: a variance or covariance within their rounding error is 0, or a constant would seem to vary.
    """
    n, slack = sums.n, Fraction(0) if isinstance(sums, Moments) else ROUNDING
    t, d, x = Fraction(sums.total), Fraction(sums.denominator_total), Fraction(sums.covariate_total)
    return Summary(
        n=n,
        mean=_mean(n, t, y),
        variance=_co(n, Fraction(sums.squares), t, t, y * y, slack),
        denominator_mean=_mean(n, d, z),
        denominator_variance=_co(n, Fraction(sums.denominator_squares), d, d, z * z, slack),
        covariance=_co(n, Fraction(sums.cross), t, d, y * z, slack),
        covariate_mean=_mean(n, x, y),
        covariate_variance=_co(n, Fraction(sums.covariate_squares), x, x, y * y, slack),
        covariate_covariance=_co(n, Fraction(sums.covariate_cross), t, x, y * y, slack),
    )


def _step(resolution: float) -> Fraction:
    """A resolution as a person means it: 0.01 is a hundredth, not the nearest double."""
    return Fraction(str(resolution))


def _mean(n: int, total: Fraction, step: Fraction) -> float:
    return float(total * step / n) if n else 0.0


def _co(n: int, cross: Fraction, left: Fraction, right: Fraction, step: Fraction, slack: Fraction) -> float:
    central = cross - left * right / n if n > 1 else Fraction(0)
    return float(central * step / (n - 1)) if abs(central) > slack * abs(cross) else 0.0

"""What is known of an experiment's metric, in numbers that merge and retract exactly; and the type that says that nothing is known."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Kind(StrEnum):
    """What a metric compares between arms: a mean or a proportion over units, a ratio of two sums, or a quantile."""

    MEAN = "mean"
    PROPORTION = "proportion"
    RATIO = "ratio"
    QUANTILE = "quantile"


class CannotTell(Struct, frozen=True, tag_field="type", tag="cannot_tell"):
    """There is no number, and why. It is never replaced by a made-up one such as p = 1."""

    reason: str


class Moments(Struct, frozen=True, array_like=True, gc=False):
    """Sums over the units of one arm, in whole steps of the metric's resolution. Merge with ``+``, retract with ``-``.

    ``total`` is of the value y (a ratio's numerator), ``denominator`` of a ratio's denominator z, ``covariate`` of what the unit
    did before its exposure, x. Integers, because float sums neither associate nor retract: the variance of 1e9 + U(0,1) came out as -3148.

    >>> Moments.of(3) + Moments.of(1) - Moments.of(3) == Moments.of(1)
    True
    """

    n: int = 0
    total: int = 0
    squares: int = 0
    denominator_total: int = 0
    denominator_squares: int = 0
    cross: int = 0
    """Sum of y z."""
    covariate_total: int = 0
    covariate_squares: int = 0
    covariate_cross: int = 0
    """Sum of y x."""

    @staticmethod
    def of(value: int, denominator: int = 0, covariate: int = 0) -> Moments:
        """One unit's contribution."""
        return Moments(
            1,
            value,
            value * value,
            denominator,
            denominator * denominator,
            value * denominator,
            covariate,
            covariate * covariate,
            value * covariate,
        )

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.n + other.n,
            self.total + other.total,
            self.squares + other.squares,
            self.denominator_total + other.denominator_total,
            self.denominator_squares + other.denominator_squares,
            self.cross + other.cross,
            self.covariate_total + other.covariate_total,
            self.covariate_squares + other.covariate_squares,
            self.covariate_cross + other.covariate_cross,
        )

    def __sub__(self, other: Moments) -> Moments:
        return Moments(
            self.n - other.n,
            self.total - other.total,
            self.squares - other.squares,
            self.denominator_total - other.denominator_total,
            self.denominator_squares - other.denominator_squares,
            self.cross - other.cross,
            self.covariate_total - other.covariate_total,
            self.covariate_squares - other.covariate_squares,
            self.covariate_cross - other.covariate_cross,
        )

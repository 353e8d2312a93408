"""CUPED: the part of a metric that what a unit did before its exposure explains is taken out of both arms, which narrows the interval."""

from __future__ import annotations

from millrace.schemas.evidence import CannotTell, Kind
from millrace.streams.stats.arm import Arm, arm, baseline, contradiction, effect_of, rounded
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.summary import Summary


def theta(control: Summary, treatment: Summary) -> float:
    """The slope of the value on the covariate over the units of both arms together; 0 where the covariate does not vary.

    Source: Deng, Xu, Kohavi, Walker, *Improving the Sensitivity of Online Controlled Experiments by Utilizing Pre-Experiment Data*,
    WSDM 2013, section 3.
    """
    between = control.n * treatment.n / (control.n + treatment.n)
    x, y = treatment.covariate_mean - control.covariate_mean, treatment.mean - control.mean
    squares = (control.n - 1) * control.covariate_variance + (treatment.n - 1) * treatment.covariate_variance + between * x * x
    cross = (control.n - 1) * control.covariate_covariance + (treatment.n - 1) * treatment.covariate_covariance + between * x * y
    return cross / squares if squares > 0.0 else 0.0


def adjusted(control: Summary, treatment: Summary, kind: Kind, difference: Difference) -> Effect | CannotTell:
    """The adjusted difference. Each arm's mean is y - theta (x - x of both arms), so that it stays in the metric's own units.

    Relative: that centre is random and common to both arms, so the lift r - 1 has the delta method's variance with the slope
    k = theta (w_c + r w_t), w the arms' shares of units: (var(y_t - k x_t) + var(r y_c - k x_c)) / C^2, CUPED's own where r = 1.
    Sources: Deng et al., WSDM 2013, section 3; arXiv 1803.06336, section 3.
    """
    if kind not in (Kind.MEAN, Kind.PROPORTION):
        return CannotTell(f"a {kind.value} is not adjusted by a covariate: CUPED here is for means and proportions; switch it off for it")
    if control.n < 2 or treatment.n < 2:
        least = min(control.n, treatment.n)
        return CannotTell(f"an arm has {least} unit{'s' * (least != 1)}; a comparison needs at least 2 in each")
    slope = theta(control, treatment)
    left, right = _centred("control", control, treatment, kind, slope), _centred("treatment", treatment, control, kind, slope)
    if isinstance(left, CannotTell):
        return left
    if isinstance(right, CannotTell):
        return right
    if difference is Difference.ABSOLUTE:
        return effect_of(left, right, difference, left.squared_error + right.squared_error)
    refusal = baseline(left.mean, left.squared_error)
    if refusal is not None:
        return refusal
    return effect_of(
        left, right, difference, _squared_error_of_lift(control, treatment, kind, slope, right.mean / left.mean) / left.mean**2
    )


def _centred(name: str, own: Summary, other: Summary, kind: Kind, slope: float) -> Arm | CannotTell:
    plain = arm(name, own, kind)
    if isinstance(plain, CannotTell):
        return plain
    variance = _variance(own, kind, 1.0, slope)
    if own.covariate_variance < 0.0 or variance < 0.0:
        return contradiction(name, "its covariate has a variance below 0, or explains more than all of the metric's")
    away = (own.covariate_mean - other.covariate_mean) * other.n / (own.n + other.n)
    return Arm(n=own.n, mean=own.mean - slope * away, squared_error=variance / own.n, degrees=plain.degrees)


def _squared_error_of_lift(control: Summary, treatment: Summary, kind: Kind, slope: float, quotient: float) -> float:
    common = slope * (control.n + quotient * treatment.n) / (control.n + treatment.n)
    return _variance(treatment, kind, 1.0, common) / treatment.n + _variance(control, kind, quotient, common) / control.n


def _variance(summary: Summary, kind: Kind, scale: float, slope: float) -> float:
    """Of one unit's scale y - slope x, every part with the denominator n - 1, or a proportion's could come out below 0."""
    y, x = summary.variance, summary.covariate_variance
    if kind is Kind.PROPORTION:
        y = summary.mean * (1.0 - summary.mean) * summary.n / (summary.n - 1)
    whole = scale * scale * y + slope * slope * x
    return rounded(whole - 2.0 * scale * slope * summary.covariate_covariance, whole)

"""Does a comparison say what it can tell and no more, whichever arm is which and in whatever unit?"""

from __future__ import annotations

import math

import pytest
from scipy import stats

from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.streams.stats.bayesian import IMPROPER, Prior, posterior
from millrace.streams.stats.compare import difference
from millrace.streams.stats.cuped import theta
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.effect_size import EffectSize, cohens_d
from millrace.streams.stats.interval import bounds, fixed, p_greater, p_less
from millrace.streams.stats.stratify import Stratum, post_stratified
from millrace.streams.stats.summary import Summary, Totals, of_moments, of_totals

ABSOLUTE, RELATIVE = Difference.ABSOLUTE, Difference.RELATIVE
CONTROL = Summary(
    n=400,
    mean=5.0,
    variance=9.0,
    denominator_mean=2.0,
    denominator_variance=1.0,
    covariance=1.5,
    covariate_mean=4.0,
    covariate_variance=8.0,
    covariate_covariance=6.0,
)
TREATMENT = Summary(
    n=250,
    mean=5.5,
    variance=10.0,
    denominator_mean=2.1,
    denominator_variance=1.2,
    covariance=1.7,
    covariate_mean=4.2,
    covariate_variance=7.0,
    covariate_covariance=6.5,
)
RARE = Summary(n=1000, mean=0.2, variance=0.16, covariate_mean=0.3, covariate_variance=0.21, covariate_covariance=0.05)
EFFECT = Effect(effect=0.3, std_error=0.1, n=60, degrees=50.0, control_mean=1.0, treatment_mean=1.3, difference=ABSOLUTE)
PAIRS = [(Kind.MEAN, False), (Kind.RATIO, False), (Kind.MEAN, True)]


def told(given: Effect | CannotTell) -> Effect:
    assert isinstance(given, Effect), given
    return given


def reason(given: object) -> str:
    assert isinstance(given, CannotTell), given
    return given.reason


def scaled(summary: Summary, by: float) -> Summary:
    """The same units, their value and covariate in another unit of measurement."""
    return Summary(
        n=summary.n,
        mean=summary.mean * by,
        variance=summary.variance * by * by,
        denominator_mean=summary.denominator_mean,
        denominator_variance=summary.denominator_variance,
        covariance=summary.covariance * by,
        covariate_mean=summary.covariate_mean * by,
        covariate_variance=summary.covariate_variance * by * by,
        covariate_covariance=summary.covariate_covariance * by * by,
    )


@pytest.mark.parametrize(("kind", "adjust"), PAIRS)
def test_swapped_arms_negate_an_absolute_effect(kind: Kind, adjust: bool) -> None:
    there = told(difference(CONTROL, TREATMENT, kind, ABSOLUTE, adjust=adjust))
    back = told(difference(TREATMENT, CONTROL, kind, ABSOLUTE, adjust=adjust))
    assert there.effect == pytest.approx(-back.effect, rel=1e-12)
    assert there.std_error == pytest.approx(back.std_error, rel=1e-12)
    assert there.degrees == pytest.approx(back.degrees, rel=1e-12)
    assert fixed(there).p_value == pytest.approx(fixed(back).p_value, rel=1e-9)


@pytest.mark.parametrize("relative", Difference)
@pytest.mark.parametrize(("kind", "adjust"), PAIRS)
def test_another_unit_scales_an_absolute_effect_and_leaves_a_lift(kind: Kind, adjust: bool, relative: Difference) -> None:
    cents, euros = (told(difference(scaled(CONTROL, by), scaled(TREATMENT, by), kind, relative, adjust=adjust)) for by in (100.0, 1.0))
    factor = 100.0 if relative is ABSOLUTE else 1.0
    assert cents.effect == pytest.approx(factor * euros.effect, rel=1e-12)
    assert cents.std_error == pytest.approx(factor * euros.std_error, rel=1e-12)
    assert fixed(cents).p_value == pytest.approx(fixed(euros).p_value, rel=1e-9)


@pytest.mark.parametrize(("kind", "adjust"), PAIRS)
def test_a_lift_is_the_quotient_of_the_arms_that_it_names(kind: Kind, adjust: bool) -> None:
    effect = told(difference(CONTROL, TREATMENT, kind, RELATIVE, adjust=adjust))
    assert effect.effect == pytest.approx(effect.treatment_mean / effect.control_mean - 1.0, rel=1e-12)
    assert effect.n == 650


def test_welch_is_what_scipy_computes() -> None:
    effect = told(difference(CONTROL, TREATMENT, Kind.MEAN, ABSOLUTE))
    theirs = stats.ttest_ind_from_stats(5.5, math.sqrt(10.0), 250, 5.0, 3.0, 400, equal_var=False)
    assert fixed(effect).p_value == pytest.approx(theirs.pvalue, rel=1e-9)


def test_an_adjusted_mean_stays_in_the_metric_s_own_units() -> None:
    """The covariate's centre is both arms': 4.0 and 4.2 with 400 and 250 units."""
    effect, slope = told(difference(CONTROL, TREATMENT, Kind.MEAN, ABSOLUTE, adjust=True)), theta(CONTROL, TREATMENT)
    assert effect.control_mean == pytest.approx(5.0 + slope * 0.2 * 250 / 650, rel=1e-12)
    assert effect.treatment_mean == pytest.approx(5.5 - slope * 0.2 * 400 / 650, rel=1e-12)


def test_a_covariate_that_does_not_vary_changes_nothing() -> None:
    """All units are new: there is nothing to take out, and the difference is still known."""
    plain = Summary(n=100, mean=5.0, variance=9.0), Summary(n=90, mean=5.5, variance=9.0)
    for relative in Difference:
        adjusted, unadjusted = (told(difference(*plain, kind=Kind.MEAN, relative=relative, adjust=adjust)) for adjust in (True, False))
        assert adjusted.effect == pytest.approx(unadjusted.effect, rel=1e-12)
        assert adjusted.std_error == pytest.approx(unadjusted.std_error, rel=1e-12)


def test_a_proportion_that_its_covariate_explains_wholly_is_not_below_0() -> None:
    """With p (1 - p) over n and the covariate over n - 1 its variance came out negative."""
    arms = [Totals(n=50, total=k, squares=k, covariate_total=k, covariate_squares=k, covariate_cross=k) for k in (20, 25)]
    left, right = map(of_totals, arms)
    assert "neither arm's metric varies" in reason(difference(left, right, Kind.PROPORTION, ABSOLUTE, adjust=True))


@pytest.mark.parametrize("adjust", [False, True])
def test_fewer_than_two_units_are_not_compared(adjust: bool) -> None:
    one = Summary(n=1, mean=5.0, variance=0.0)
    assert "1 unit" in reason(difference(one, TREATMENT, Kind.MEAN, ABSOLUTE, adjust=adjust))
    assert "1 unit" in reason(difference(CONTROL, one, Kind.MEAN, ABSOLUTE, adjust=adjust))
    assert "0 units" in reason(difference(CONTROL, Summary(n=0, mean=0.0, variance=0.0), Kind.MEAN, RELATIVE, adjust=adjust))


@pytest.mark.parametrize("relative", Difference)
def test_arms_without_variance_are_not_compared_but_one_with_it_is_enough(relative: Difference) -> None:
    still = Summary(n=10, mean=5.0, variance=0.0)
    assert "varies" in reason(difference(still, Summary(n=10, mean=6.0, variance=0.0), Kind.MEAN, relative))
    assert told(difference(still, TREATMENT, Kind.MEAN, relative)).degrees == pytest.approx(249.0)


def test_a_constant_written_down_in_doubles_does_not_vary() -> None:
    """0.1 + 0.1 + 0.1 and its squares differ from 3 * 0.1 in the last place, which would be a variance of 1e-18 and a p-value of 0."""
    arms = [of_totals(Totals(n=3, total=v + v + v, squares=v * v + v * v + v * v)) for v in (0.1, 0.3)]
    assert "varies" in reason(difference(arms[0], arms[1], Kind.MEAN, ABSOLUTE))


@pytest.mark.parametrize(
    ("mean", "variance", "said"),
    [(0.0, 1.0, "is 0"), (-5.0, 1.0, "below 0"), (0.1, 1.0, "Fieller's g is 0.96"), (1e-9, 1.0, "not clearly away")],
)
def test_a_lift_over_what_cannot_be_divided_by_is_refused(mean: float, variance: float, said: str) -> None:
    control, treatment = Summary(n=400, mean=mean, variance=variance), Summary(n=250, mean=5.5, variance=10.0)
    for adjust in (False, True):
        assert said in reason(difference(control, treatment, Kind.MEAN, RELATIVE, adjust=adjust))
        assert told(difference(control, treatment, Kind.MEAN, ABSOLUTE, adjust=adjust)).effect == 5.5 - mean


def test_a_lift_is_told_from_26_rare_conversions_on() -> None:
    arm = Summary(n=100_000, mean=25e-5, variance=0.0), Summary(n=100_000, mean=26e-5, variance=0.0)
    assert "wait for more units" in reason(difference(arm[0], arm[0], Kind.PROPORTION, RELATIVE))
    assert told(difference(arm[1], arm[1], Kind.PROPORTION, RELATIVE)).effect == 0.0


@pytest.mark.parametrize("mean", [0.0, 0.05])
def test_a_ratio_without_a_clear_denominator_is_refused(mean: float) -> None:
    arm = Summary(n=100, mean=5.0, variance=1.0, denominator_mean=mean, denominator_variance=1.0)
    assert "denominator" in reason(difference(arm, TREATMENT, Kind.RATIO, ABSOLUTE))
    assert "treatment's denominator" in reason(difference(CONTROL, arm, Kind.RATIO, RELATIVE))


@pytest.mark.parametrize(("resolutions", "times"), [((0.1, 0.7), 13), ((0.01, 0.3), 3), ((0.001, 0.07), 7), ((0.01, 0.07), 13)])
def test_a_ratio_that_never_varies_is_not_compared(resolutions: tuple[float, float], times: int) -> None:
    """Each unit's value is so many times its denominator: in doubles the residual of some came out as a little more or less than 0."""
    units = [Moments.of(times * z, z) for z in (10, 7, 11, 29) * 10]
    arm = of_moments(sum(units, Moments()), *resolutions)
    assert "varies" in reason(difference(arm, arm, Kind.RATIO, ABSOLUTE))


def test_what_is_not_here_is_said() -> None:
    assert "ratio is not adjusted" in reason(difference(CONTROL, TREATMENT, Kind.RATIO, ABSOLUTE, adjust=True))
    assert "archive" in reason(difference(CONTROL, TREATMENT, Kind.QUANTILE, ABSOLUTE))


def test_sums_that_no_data_has_are_refused() -> None:
    assert "contradict" in reason(difference(of_totals(Totals(n=10, total=10, squares=1)), CONTROL, Kind.MEAN, ABSOLUTE))
    assert "contradict" in reason(difference(of_totals(Totals(n=10, total=20)), RARE, Kind.PROPORTION, ABSOLUTE))
    negative = Summary(n=100, mean=5.0, variance=1.0, denominator_mean=2.0, denominator_variance=-1.0, covariate_variance=-1.0)
    assert "contradict" in reason(difference(negative, TREATMENT, Kind.RATIO, ABSOLUTE))
    assert "contradict" in reason(difference(CONTROL, negative, Kind.MEAN, ABSOLUTE, adjust=True))
    too_much = Summary(n=10, mean=1.0, variance=1.0, covariate_mean=1.0, covariate_variance=1.0, covariate_covariance=5.0)
    assert "contradict" in reason(difference(too_much, too_much, Kind.MEAN, ABSOLUTE, adjust=True))


def test_numbers_too_large_for_a_double_are_refused() -> None:
    huge = Summary(n=10, mean=1e300, variance=1e300), Summary(n=10, mean=1e-5, variance=1e-30)
    assert "too large" in reason(difference(huge[1], huge[0], Kind.MEAN, RELATIVE))


def test_one_sided_tests_are_halves_of_the_two_sided_one_and_see_their_margin() -> None:
    assert p_greater(EFFECT) == pytest.approx(fixed(EFFECT).p_value / 2.0, rel=1e-12)
    assert p_greater(EFFECT) + p_less(EFFECT) == pytest.approx(1.0, rel=1e-12)
    assert p_greater(EFFECT, 0.3) == pytest.approx(0.5)
    assert p_less(EFFECT, 0.5) == pytest.approx(stats.t.sf(2.0, 50), rel=1e-9)
    assert bounds(EFFECT, 0.025) == pytest.approx(fixed(EFFECT, 0.05).interval)


def test_a_tail_is_not_lost_to_1() -> None:
    far = Effect(effect=3.0, std_error=0.1, n=9000, degrees=8000.0, control_mean=1.0, treatment_mean=4.0, difference=ABSOLUTE)
    assert 0.0 < fixed(far).p_value < 1e-150


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_an_alpha_that_is_no_share_is_an_error(alpha: float) -> None:
    for judge in (fixed, bounds, lambda effect, level: posterior(effect, IMPROPER, level)):
        with pytest.raises(ValueError, match="alpha must be between 0 and 1"):
            judge(EFFECT, alpha)


def test_a_prior_pulls_the_posterior_by_its_precision() -> None:
    """Data 0.3 with precision 100, prior 0 with precision 300: a quarter of the way."""
    known = posterior(EFFECT, Prior(0.0, 1.0 / 300.0, True))
    assert known.lift == pytest.approx(0.075)
    assert known.std == pytest.approx(0.05)
    assert known.chance_to_win == pytest.approx(stats.norm.cdf(1.5))
    wide = posterior(EFFECT, Prior(5.0, 1e12, True))
    assert (wide.lift, wide.std) == pytest.approx((posterior(EFFECT).lift, posterior(EFFECT).std))


def test_where_lower_is_better_chance_and_risk_change_sides() -> None:
    up, down = posterior(EFFECT), posterior(EFFECT, lower_is_better=True)
    assert down.chance_to_win == pytest.approx(1.0 - up.chance_to_win)
    assert (down.risk.control, down.risk.treatment) == (up.risk.treatment, up.risk.control)
    assert up.risk.control - up.risk.treatment == pytest.approx(up.lift)
    assert (down.lift, down.interval) == (up.lift, up.interval)


@pytest.mark.parametrize("effect", [-2.0, -2.99, -3.01, -3.5])
def test_the_risk_far_out_is_the_integral_that_it_stands_for(effect: float) -> None:
    """In standard deviations 20 to 35: E[max(X, 0)] is the integral of the upper tail, whose logarithm scipy knows."""
    far = Effect(effect=effect, std_error=0.1, n=60, degrees=50.0, control_mean=9.0, treatment_mean=9.0 + effect, difference=ABSOLUTE)
    z = effect / 0.1
    steps = [(k + 0.5) / 4000.0 for k in range(4000)]
    log_tails = stats.norm.logsf([-z + step for step in steps])
    integral = sum(math.exp(log - log_tails[0]) for log in log_tails) / 4000.0
    assert math.log(posterior(far).risk.control) == pytest.approx(math.log(0.1 * integral) + log_tails[0], abs=1e-5)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 0.0), (0.0, -1.0), (math.inf, 1.0), (0.0, math.inf)])
def test_a_proper_prior_that_means_nothing_is_an_error(mean: float, variance: float) -> None:
    with pytest.raises(ValueError, match="proper prior"):
        Prior(mean, variance, True)


def test_cohens_d_is_in_pooled_standard_deviations() -> None:
    size = cohens_d(CONTROL, TREATMENT, Kind.MEAN)
    assert isinstance(size, EffectSize)
    assert size.d == pytest.approx(0.5 / math.sqrt((399 * 9.0 + 249 * 10.0) / 648))
    assert size.interval[0] < size.d < size.interval[1]
    assert "varies" in reason(cohens_d(Summary(n=9, mean=5.0, variance=0.0), Summary(n=9, mean=6.0, variance=0.0), Kind.MEAN))
    assert "1 unit" in reason(cohens_d(Summary(n=1, mean=5.0, variance=0.0), TREATMENT, Kind.MEAN))


@pytest.mark.parametrize("relative", Difference)
@pytest.mark.parametrize("kind", [Kind.MEAN, Kind.PROPORTION, Kind.RATIO])
def test_one_stratum_is_no_stratification(kind: Kind, relative: Difference) -> None:
    arms = (RARE, RARE) if kind is Kind.PROPORTION else (CONTROL, TREATMENT)
    one = told(post_stratified([Stratum(weight=3.0, control=arms[0], treatment=arms[1])], kind, relative))
    plain = told(difference(*arms, kind=kind, relative=relative))
    assert (one.effect, one.std_error, one.degrees) == pytest.approx((plain.effect, plain.std_error, plain.degrees), rel=1e-12)


def test_equal_strata_are_one_with_more_units() -> None:
    half = Stratum(weight=0.5, control=CONTROL, treatment=TREATMENT)
    both, one = (told(post_stratified([half] * times, Kind.RATIO, ABSOLUTE)) for times in (2, 1))
    assert both.effect == pytest.approx(one.effect)
    assert both.n == 2 * one.n
    assert both.std_error == pytest.approx(one.std_error / math.sqrt(2.0))


def test_a_stratum_that_cannot_be_compared_is_named_and_one_without_weight_is_left_out() -> None:
    good, bad = Stratum(weight=1.0, control=CONTROL, treatment=TREATMENT), Summary(n=1, mean=1.0, variance=0.0)
    named = Stratum(weight=1.0, control=bad, treatment=TREATMENT, name="Malta")
    assert "control in stratum Malta has 1 unit" in reason(post_stratified([good, named], Kind.MEAN, ABSOLUTE))
    assert "fewer than 2 units" in reason(post_stratified([good, named], Kind.RATIO, ABSOLUTE))
    unused = Stratum(weight=0.0, control=bad, treatment=bad)
    assert told(post_stratified([good, unused], Kind.MEAN, ABSOLUTE)).effect == pytest.approx(0.5)
    with pytest.raises(ValueError, match="weights of strata"):
        post_stratified([unused], Kind.MEAN, ABSOLUTE)

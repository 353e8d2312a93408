"""One treatment against the control on one metric: the estimate and what every method says of it."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Analysis, NormalPrior
from millrace.schemas.metric import Direction, Metric
from millrace.schemas.result import AnytimeEvidence, BayesianEvidence, Estimate, FixedEvidence, MixtureEvidence
from millrace.streams.judge.mixture import Mixture
from millrace.streams.judge.past import Largest
from millrace.streams.stats.bayesian import IMPROPER, Prior, posterior
from millrace.streams.stats.compare import difference
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.effect_size import cohens_d
from millrace.streams.stats.interval import fixed
from millrace.streams.stats.msprt import p_value
from millrace.streams.stats.sequence import always_valid, rho
from millrace.streams.stats.summary import Summary


class Terms(Struct, frozen=True, kw_only=True):
    """How an effect is told: as a share of the control or in the metric's units, at which level, narrowest when, believing what before."""

    difference: Difference = Difference.RELATIVE
    alpha: float = 0.05
    tuning: float = 5_000.0
    prior: Prior = IMPROPER
    tau: float | None = None
    """The mixture SPRT's; without one, its mixture is that of the confidence sequence."""

    @staticmethod
    def of(analysis: Analysis, metric: Metric | None = None) -> Terms:
        """As a plan's analysis says, of this metric: without a ``tau``, plausible effects are as large as its ``minimal_effect``."""
        return Terms(
            difference=Difference(analysis.difference),
            alpha=analysis.alpha,
            tuning=analysis.tuning,
            prior=prior_of(analysis.prior),
            tau=analysis.tau or (metric.minimal_effect if metric is not None else None) or None,
        )

    @property
    def mixture(self) -> Mixture:
        """The mixture SPRT's plausible effects."""
        return Mixture(self.difference, self.tau, rho(self.alpha, self.tuning))


class Pair(Struct, frozen=True, kw_only=True):
    """What is compared: two arms on one metric, by which kind, which way is better, and whether a covariate is taken out (CUPED)."""

    control: Summary
    treatment: Summary
    kind: Kind
    direction: Direction = Direction.INCREASE
    adjust: bool = False

    def effect(self, relative: Difference) -> Effect | CannotTell:
        """The difference, treatment less control."""
        return difference(self.control, self.treatment, self.kind, relative, adjust=self.adjust)


class Levels(Struct, frozen=True, kw_only=True):
    """At which levels intervals are told, and p-values corrected for the family they are of; None where they stand alone."""

    fixed: float | None = None
    anytime: float | None = None
    mixture: float | None = None
    adjusted_fixed: float | None = None
    adjusted_anytime: float | None = None
    adjusted_mixture: float | None = None


ALONE = Levels()


def prior_of(belief: NormalPrior | None) -> Prior:
    """A plan's belief as the statistics take it: without one, every effect is as likely."""
    return IMPROPER if belief is None else Prior(belief.mean, belief.variance, True)


def estimate(pair: Pair, terms: Terms, levels: Levels = ALONE) -> Estimate | CannotTell:
    """Every method's say on one pair, or why there is none."""
    effect = pair.effect(terms.difference)
    return effect if isinstance(effect, CannotTell) else told(pair, effect, terms, levels)


def told(pair: Pair, effect: Effect, terms: Terms, levels: Levels, before: Largest | None = None) -> Estimate | CannotTell:
    """Every method's say on an effect; ``before`` is the mixture SPRT's largest evidence of earlier looks.

    The confidence sequence's mixture is the nominal level's at every level of the interval. So the interval leaves out 0 just where the
    p-value is at most its level, and p-values of different looks are of one martingale.
    """
    level = terms.alpha if levels.anytime is None else levels.anytime
    sequence = always_valid(effect, level, _held_tuning(terms, level))
    if isinstance(sequence, CannotTell):
        return sequence
    horizon = fixed(effect, terms.alpha if levels.fixed is None else levels.fixed)
    belief = posterior(effect, terms.prior, terms.alpha, lower_is_better=pair.direction is Direction.DECREASE)
    size = cohens_d(pair.control, pair.treatment, pair.kind, terms.alpha)
    return Estimate(
        effect=effect.effect,
        std_error=effect.std_error,
        fixed=FixedEvidence(
            interval=horizon.interval,
            p_value=horizon.p_value,
            adjusted_p_value=levels.adjusted_fixed,
            level=_unless(levels.fixed, terms.alpha),
        ),
        always_valid=AnytimeEvidence(
            interval=sequence.interval,
            p_value=sequence.p_value,
            adjusted_p_value=levels.adjusted_anytime,
            level=_unless(levels.anytime, terms.alpha),
            mixture=_mixed(effect, terms, levels, before),
        ),
        bayesian=BayesianEvidence(
            lift=belief.lift,
            std=belief.std,
            interval=belief.interval,
            chance_to_win=belief.chance_to_win,
            risk=(belief.risk.control, belief.risk.treatment),
        ),
        cohens_d=size if isinstance(size, CannotTell) else size.d,
        adjusted=pair.adjust,
    )


def _mixed(effect: Effect, terms: Terms, levels: Levels, before: Largest | None) -> MixtureEvidence | CannotTell:
    level = terms.alpha if levels.mixture is None else levels.mixture
    found = terms.mixture.evidence(effect, before, level, levels.adjusted_mixture)
    return found if isinstance(found, CannotTell) else replace(found, level=_unless(levels.mixture, terms.alpha))


def _unless(level: float | None, alpha: float) -> float | UnsetType:
    """A level, where it is another than the result's."""
    return UNSET if level is None or level == alpha else level


class PValues(Struct, frozen=True):
    """The p-values of no effect, uncorrected. That of the mixture SPRT looks back; it is None where it cannot be told."""

    fixed: float
    anytime: float
    mixture: float | None


def p_values(effect: Effect, terms: Terms, before: Largest | None) -> PValues | CannotTell:
    """What is corrected for a family."""
    sequence = always_valid(effect, terms.alpha, terms.tuning)
    if isinstance(sequence, CannotTell):
        return sequence
    most = terms.mixture.largest(effect, before)
    mixed = None if isinstance(most, CannotTell) else p_value(most.log_evalue)
    return PValues(fixed(effect, terms.alpha).p_value, sequence.p_value, mixed)


def _held_tuning(terms: Terms, level: float) -> float:
    """The tuning at which another level has the nominal level's mixture: rho squared goes with 1 / tuning (arXiv 2103.06476, eq. 161)."""
    return terms.tuning * (rho(level, terms.tuning) / rho(terms.alpha, terms.tuning)) ** 2

"""Metrics that are a quantile of outcomes: not a function of mergeable sums, so asked of the archive at the result's offsets."""

from __future__ import annotations

from collections.abc import Iterator

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments import report_answers as ask
from millrace.infra.clickhouse.experiments.as_of import AsOf
from millrace.schemas.evidence import CannotTell
from millrace.schemas.metric import Metric
from millrace.streams.judge.estimate import Terms
from millrace.streams.stats.effect import Effect
from millrace.streams.stats.interval import fixed
from millrace.streams.stats.quantile import QuantileArm, outer, quantile_difference
from millrace.streams.stats.summary import of_moments
from millrace.workers.report.content import QuantileEffect

Arms = dict[str, QuantileArm | CannotTell]


def quantile_effects(client: Client, question: AsOf, metric: Metric, terms: Terms) -> Iterator[QuantileEffect]:
    """Each treatment's quantile against the control's. Raises Refusal or Unavailable."""
    control, *treatments = [variant.name for variant in question.plan.variants]
    found = _arms(client, question, metric, terms.alpha)
    for variant in treatments:
        yield _told(metric, variant, found[control], found[variant], terms)


def _arms(client: Client, question: AsOf, metric: Metric, alpha: float) -> Arms:
    """Each variant's quantile, and the values at the ends of the levels that its clusters leave open."""
    values = ask.outcome_quantiles(client, question, metric, (metric.quantile,))
    below = ask.below(client, question, metric, {name: one.steps[0] for name, one in values.items()}) if values else {}
    found: Arms = {variant.name: CannotTell(f"{variant.name} has no outcomes") for variant in question.plan.variants}
    for name, sums in below.items():
        levels = outer(metric.quantile, of_moments(sums), alpha)
        if isinstance(levels, CannotTell):
            found[name] = levels
            continue
        low, high = ask.outcome_quantiles(client, question, metric, (levels.low, levels.high))[name].values
        found[name] = QuantileArm(units=sums.n, value=values[name].values[0], low=low, high=high)
    return found


def _told(
    metric: Metric, variant: str, control: QuantileArm | CannotTell, treatment: QuantileArm | CannotTell, terms: Terms
) -> QuantileEffect:
    effect = _effect(control, treatment, terms)
    told = None if isinstance(effect, CannotTell) else fixed(effect, terms.alpha)
    return QuantileEffect(
        metric=metric.name,
        variant=variant,
        quantile=metric.quantile,
        control=None if isinstance(control, CannotTell) else control.value,
        treatment=None if isinstance(treatment, CannotTell) else treatment.value,
        effect=None if isinstance(effect, CannotTell) else effect.effect,
        interval=None if told is None else told.interval,
        p_value=None if told is None else told.p_value,
        cannot_tell=effect.reason if isinstance(effect, CannotTell) else "",
    )


def _effect(control: QuantileArm | CannotTell, treatment: QuantileArm | CannotTell, terms: Terms) -> Effect | CannotTell:
    if isinstance(control, CannotTell):
        return control
    if isinstance(treatment, CannotTell):
        return treatment
    return quantile_difference(control, treatment, terms.difference, terms.alpha)

"""``millrace experiments results``: the newest judged result, as the judge published it, or judged on demand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

import typer

from millrace.infra.settings import Settings
from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Plan, Rule
from millrace.schemas.result import Comparison, Harm, LookEvidence, MetricArm, MetricResult, MixtureEvidence, Result
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.experiments.plans import Name, known_plans, newest_plan, warn
from millrace.workers.commands.report import kafka_settings, say, show, when
from millrace.workers.report import words
from millrace.workers.results import look_up, newest_result

COLUMNS = ("metric", "role", "variant", "units", "mean", "effect", "fixed interval", "always valid", "p", "to win", "harm")
ARMS = ("variant", "units", "assigned", "exposed", "multiple", "outcomes", "late", "duplicates")
LOOKS = ("metric", "variant", "look", "at units", "effect", "z", "boundary of |z|", "nominal alpha", "repeated interval")
MIXTURES = ("metric", "variant", "tau", "log e-value", "largest so far", "p so far", "interval")
WATCH_SECONDS = 1.0
Watch = Annotated[bool, typer.Option("--watch", help="Go on, and show each new result, until it is interrupted.")]
Now = Annotated[bool, typer.Option("--now", help="Judge what is sealed on Kafka at this moment, here; it is not recorded.")]


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(results)


def results(name: Name, watch: Watch = False, now: Now = False, data: Data = None, json: Json = False) -> None:
    """Show the newest result of an experiment: each treatment against the control, the decision, and what speaks against trusting it."""
    if watch and now:
        raise UsageError("--watch shows what the judge publishes, and --now does without it: take one of them")
    settings = kafka_settings(data)
    plans = known_plans(settings)
    newest_plan(plans, name)
    if now:
        _show(_judged_now(settings, plans.of(name)), json)
        return
    if not watch:
        _show(newest_result(settings, name), json)
        return
    shown: Result | None = None
    while True:
        found = look_up(settings, name)
        if found is not None and found != shown:
            _show(found, json)
            shown = found
        time.sleep(WATCH_SECONDS)


def _judged_now(settings: Settings, versions: list[Plan]) -> Result:
    """Judged here; on standard error, what of it looks back, and how far."""
    from millrace.workers.on_demand import judge_now

    found = judge_now(settings, versions, datetime.now(UTC))
    what = "what looks back (the smallest p-values, the largest evidence, planned looks)"
    if found.before is None:
        warn([f"judged now and not recorded; no result was published: {what} is of this look alone"])
    else:
        warn([f"judged now and not recorded; {what} goes on from the result of {when(found.before.time)}, as far as that tells it"])
    return found.result


def _show(result: Result, json: bool) -> None:
    if json:
        write_json(result)
    else:
        tell(result)


def tell(result: Result) -> None:
    """A result for reading."""
    say(f"{result.experiment}, plan version {result.plan_version}, {result.units:,} units, judged {when(result.time)}")
    decision = result.decision
    say(f"decision: {decision.verdict} {decision.variant}".rstrip() + f", by the rule {decision.rule}: {decision.reason}\n")
    show([], [row for metric in result.metrics for row in _rows(metric)], COLUMNS, False, "the plan has no metrics")
    for title, rows, columns in (("planned looks", list(_looks(result)), LOOKS), ("mixture SPRT", list(_mixtures(result)), MIXTURES)):
        if rows:
            say(f"\n{title}:")
            show([], rows, columns, False)
    say("")
    arms = [[n, a.units, a.assigned, a.exposed, a.multiple, a.outcomes, a.late, a.duplicates] for n, a in result.arms.items()]
    show([], arms, ARMS, False)
    if untold := _untold(result):
        say("\n" + "\n".join(f"cannot tell: {reason}" for reason in untold))
    say("\nhealth: " + ("nothing speaks against it" if not result.health else ""))
    for finding in result.health:
        where = " ".join(filter(None, (finding.metric, finding.variant)))
        say(f"  {finding.severity}: {finding.check}{f' ({where})' if where else ''}: {finding.cause}")
    levels = f"intervals at {1 - result.alpha:.4g}, or as the correction for all tests asks"
    say(f"effects are {result.difference}, {levels}; --json has the offsets and all numbers")


def _rows(metric: MetricResult) -> list[list[object]]:
    (control, arm), *_ = metric.arms.items()
    rows: list[list[object]] = [[metric.name, metric.role, control, arm.units, _mean(arm), *[None] * 6]]
    return rows + [_row(metric, one) for one in metric.comparisons]


def _row(metric: MetricResult, one: Comparison) -> list[object]:
    arm = metric.arms[one.variant]
    known: list[object] = [metric.name, metric.role, one.variant, arm.units, _mean(arm)]
    if isinstance(one.estimate, CannotTell):
        return [*known, "cannot tell", None, None, None, None, _harm(one)]
    told = one.estimate
    p = told.always_valid.adjusted_p_value if told.always_valid.adjusted_p_value is not None else told.always_valid.p_value
    numbers = [f"{told.effect:+.4g}", _between(told.fixed.interval), _between(told.always_valid.interval), words.chance(p)]
    return [*known, *numbers, words.percent(told.bayesian.chance_to_win), _harm(one)]


def _looks(result: Result) -> Iterator[list[object]]:
    """The newest look of the rule ``group_sequential`` at each comparison."""
    for metric in result.metrics:
        for one in metric.comparisons:
            if isinstance(look := one.look, LookEvidence):
                place = [metric.name, one.variant, f"{look.number} of {look.planned}", look.units[-1], f"{look.effect:+.4g}"]
                crossed = f"{look.z:+.4g}{' crosses' if look.crossed else ''}"
                yield [*place, crossed, f"{look.boundary:.4g}", f"{look.nominal_alpha:.3g}", _between(look.interval)]


def _mixtures(result: Result) -> Iterator[list[object]]:
    """The evidence that the rule ``msprt`` decides by."""
    if result.decision.rule != Rule.MSPRT:
        return
    for metric in result.metrics:
        for one in metric.comparisons:
            mixture = None if isinstance(one.estimate, CannotTell) else one.estimate.always_valid.mixture
            if isinstance(mixture, MixtureEvidence):
                most = mixture.so_far
                p = most.p_value if most.adjusted_p_value is None else most.adjusted_p_value
                numbers = [f"{mixture.tau:.4g}", f"{mixture.log_evalue:.4g}", f"{most.log_evalue:.4g}", f"{p:.3g}"]
                yield [metric.name, one.variant, *numbers, _between(mixture.interval)]


def _untold(result: Result) -> list[str]:
    """Why effects cannot be told, each reason once."""
    told = [
        f"{metric.name} of {one.variant}: {one.estimate.reason}"
        for metric in result.metrics
        for one in metric.comparisons
        if isinstance(one.estimate, CannotTell)
    ]
    return list(dict.fromkeys(told))


def _harm(one: Comparison) -> str | None:
    if one.harm is None:
        return None
    if not isinstance(one.harm, Harm):
        return "cannot tell"
    return f"{'BREACHED' if one.harm.breached else 'none shown'} (limit {one.harm.limit:g}, p {one.harm.p_value:.3g})"


def _mean(arm: MetricArm) -> str:
    return "cannot tell" if isinstance(arm.mean, CannotTell) else f"{arm.mean:.6g}"


def _between(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.4g} to {interval[1]:+.4g}"

"""The report in a few sentences, for who decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from msgspec import UnsetType

from millrace.schemas.evidence import CannotTell
from millrace.schemas.experiment import Correction, Unit
from millrace.schemas.metric import Role
from millrace.schemas.result import Estimate, Finding, Harm, MetricResult, Severity, Verdict
from millrace.workers.report import words
from millrace.workers.report.content import Report

WORST = {Severity.INVALID: 0, Severity.WARNING: 1, Severity.NOTE: 2}


def verdict(report: Report) -> str:
    """What to do, and with which variant."""
    decision = report.result.decision
    return words.VERDICTS[decision.verdict] + (f": {decision.variant}" if decision.variant else "")


def standing(report: Report) -> str:
    """State, version, when it was judged, and of how many units."""
    plan, result = report.plan, report.result
    state = f"{report.state} now (judged as {plan.state})" if report.state else str(plan.state)
    owner = f" · {plan.owner}" if plan.owner else ""
    return f"{state} · plan version {plan.version}{owner} · judged {result.time:%Y-%m-%d %H:%M:%S} UTC · {counted(report)}"


def counted(report: Report) -> str:
    """How many units count."""
    return words.plural(report.result.units, "request" if report.plan.unit is Unit.REQUEST else "unit")


def findings(report: Report) -> list[Finding]:
    """What the judge and the report found, the worst first."""
    return sorted((*report.result.health, *report.findings), key=lambda finding: WORST[finding.severity])


def in_short(report: Report) -> Iterator[str]:
    """What was found on the metrics that decide, on guardrails, and in health; and how long it ran."""
    metrics = report.result.metrics
    if report.result.decision.verdict is Verdict.INVALID:
        yield from (f"{finding.check}: {finding.cause}." for finding in findings(report) if finding.severity is Severity.INVALID)
        yield "No effect below may be acted upon: they are there for whoever looks for the cause."
    else:
        deciding = [metric for metric in metrics if metric.role is Role.PRIMARY] or [m for m in metrics if m.name == report.primary]
        for metric in deciding:
            yield from _effects(report, metric)
    yield from _guardrails([metric for metric in metrics if metric.role is Role.GUARDRAIL])
    yield _health(report)
    if report.plan.allocation is not None:
        yield caution(report)
    if report.plan.started is not None:
        ran = words.duration((report.result.time - report.plan.started).total_seconds())
        yield f"Judged {ran} after it began, on {counted(report)}."


def _effects(report: Report, metric: MetricResult) -> Iterator[str]:
    difference = report.result.difference
    for comparison in metric.comparisons:
        match comparison.estimate:
            case CannotTell(reason):
                yield f"{metric.name}: cannot tell for {comparison.variant}: {reason}."
            case Estimate() as found:
                low, high = (words.effect(end, difference) for end in found.always_valid.interval)
                yield (
                    f"{metric.name}: {comparison.variant} {words.effect(found.effect, difference)} against {report.control}, between {low}"
                    f" and {high} however often one looks; chance to win {words.percent(found.bayesian.chance_to_win)}."
                )


def _guardrails(metrics: list[MetricResult]) -> Iterator[str]:
    found = [(metric.name, comparison) for metric in metrics for comparison in metric.comparisons]
    breached = [f"{name} by {c.variant}" for name, c in found if isinstance(c.harm, Harm) and c.harm.breached]
    untold = sum(not isinstance(comparison.harm, Harm) for _, comparison in found)
    if breached:
        yield f"Guardrails breached: {', '.join(breached)}."
    elif found:
        yield f"No guardrail is breached, of {len(found)} looked at" + (f"; {untold} cannot be told." if untold else ".")


def _health(report: Report) -> str:
    counts = Counter(finding.severity for finding in findings(report))
    if not counts:
        return "Health: no check found anything."
    told = {Severity.INVALID: "failure", Severity.WARNING: "warning", Severity.NOTE: "note"}
    return f"Health: {', '.join(words.plural(counts[one], noun) for one, noun in told.items() if counts[one])}."


def caution(report: Report) -> str:
    """What weights that are learnt do to the numbers of a report."""
    return (
        "Weights are learnt from the outcomes: a variant that begins badly gets fewer requests and less chance to mend its mean, so plain"
        " means lean against it, and evidence at one look and chances to win are too sure. The logged propensities correct for that:"
        f" `millrace experiments ope {report.plan.name}`."
    )


def levels(report: Report) -> str:
    """At which level the intervals of the comparisons are told, and what that promises."""
    alpha, correction = report.result.alpha, report.plan.analysis.correction
    found = [c.estimate for metric in report.result.metrics for c in metric.comparisons if isinstance(c.estimate, Estimate)]
    told = {alpha if isinstance(level, UnsetType) else level for one in found for level in (one.fixed.level, one.always_valid.level)}
    if not told or told == {alpha}:
        return f"Intervals are at {words.level(alpha)}."
    each = " or ".join(words.level(level) for level in sorted(told, reverse=True))
    promise = (
        f"of those found, {words.level(alpha)} hold, on average"
        if correction is Correction.BENJAMINI_HOCHBERG
        else f"all of a family hold together with {words.level(alpha)}"
    )
    return f"Corrected for several comparisons ({correction.value}): each interval is at {each}, so that {promise}."

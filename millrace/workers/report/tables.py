"""The report's tables: headings and rows of text, for a page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.result import Comparison, Estimate, Harm, LookEvidence, MetricResult, MixtureEvidence
from millrace.workers.report import words
from millrace.workers.report.content import AgeTrend, Crosstab, QuantileEffect, Report, Sensitivity
from millrace.workers.report.summary import findings


class Table(Struct, frozen=True):
    """Headings, and rows as long as they are."""

    headings: list[str]
    rows: list[list[str]]


def comparisons(report: Report) -> Table:
    """Every treatment on every metric."""
    rows = [_compared(report, metric, comparison) for metric in _folded(report) for comparison in metric.comparisons]
    return Table(["metric", "role", "variant", "control", "treatment", *words.CELLS], rows)


def _compared(report: Report, metric: MetricResult, comparison: Comparison) -> list[str]:
    means = [words.mean(arm) if (arm := metric.arms.get(name)) else "-" for name in (report.control, comparison.variant)]
    adjusted = isinstance(comparison.estimate, Estimate) and comparison.estimate.adjusted
    name = f"{metric.name} (CUPED)" if adjusted else metric.name
    return [name, metric.role.value, comparison.variant, *means, *words.cells(comparison, report.result.difference)]


def _folded(report: Report) -> list[MetricResult]:
    """All but quantiles, which have a table of their own."""
    return [metric for metric in report.result.metrics if metric.kind is not Kind.QUANTILE]


def untold(report: Report) -> Table:
    """Where there is no number, and why."""
    found = [(m.name, c.variant, c.estimate) for m in _folded(report) for c in m.comparisons]
    rows = [[metric, variant, estimate.reason] for metric, variant, estimate in found if isinstance(estimate, CannotTell)]
    return Table(["metric", "variant", "why"], rows)


def tests(report: Report) -> Table:
    """Every p-value of the judge, plain and corrected, the effect's size, and what a wrong choice would cost."""
    found = [(m.name, c.variant, c.estimate) for m in _folded(report) for c in m.comparisons]
    rows = [[metric, variant, *_tested(one, report.result.difference)] for metric, variant, one in found if isinstance(one, Estimate)]
    judged = ["p at one look", "corrected", "p, always valid", "corrected", "smallest so far", "Cohen's d", "loss if chosen"]
    return Table(["metric", "variant", *judged], rows)


def _tested(one: Estimate, difference: str) -> list[str]:
    once, always = one.fixed, one.always_valid
    chances = [once.p_value, once.adjusted_p_value, always.p_value, always.adjusted_p_value, always.smallest_p_value]
    size = words.UNTOLD if isinstance(one.cohens_d, CannotTell) else f"{one.cohens_d:.3g}"
    return [*map(words.chance, chances), size, words.effect(one.bayesian.risk[1], difference).lstrip("+")]


def mixtures(report: Report) -> Table:
    """The mixture SPRT of each comparison: the evidence now, and the largest so far."""
    rows = []
    for metric in _folded(report):
        for one in metric.comparisons:
            mixture = one.estimate.always_valid.mixture if isinstance(one.estimate, Estimate) else None
            if isinstance(mixture, MixtureEvidence):
                rows.append([metric.name, one.variant, *_mixed(mixture, report.result.difference)])
    headings = ["plausible effects", "log e-value", "interval", "largest so far", "p so far", "corrected"]
    return Table(["metric", "variant", *headings], rows)


def _mixed(mixture: MixtureEvidence, difference: str) -> list[str]:
    most = mixture.so_far
    now = [words.effect(mixture.tau, difference).lstrip("+"), f"{mixture.log_evalue:.3g}", words.interval(mixture.interval, difference)]
    return [*now, f"{most.log_evalue:.3g}", words.chance(most.p_value), words.chance(most.adjusted_p_value)]


def looks(report: Report) -> Table:
    """The newest of the planned looks at each comparison."""
    found = [(metric.name, one.variant, one.look) for metric in _folded(report) for one in metric.comparisons]
    rows = [
        [metric, variant, *_looked(look, report.result.difference)] for metric, variant, look in found if isinstance(look, LookEvidence)
    ]
    headings = ["look", "at units", "effect", "z", "boundary of |z|", "crossed", "nominal alpha", "repeated interval"]
    return Table(["metric", "variant", *headings], rows)


def _looked(look: LookEvidence, difference: str) -> list[str]:
    where = [f"{look.number} of {look.planned}", f"{look.units[-1]:,}", words.effect(look.effect, difference)]
    crossed = "yes" if look.crossed else "no"
    nominal = words.chance(look.nominal_alpha)
    return [*where, f"{look.z:+.3g}", f"{look.boundary:.3g}", crossed, nominal, words.interval(look.interval, difference)]


def guardrails(report: Report) -> Table:
    """What must not be harmed: the harm that is certain by now, against what is tolerated."""
    found = [(m.name, c) for m in report.result.metrics for c in m.comparisons if c.harm is not None]
    rows = [[metric, comparison.variant, *_guarded(comparison, report.result.difference)] for metric, comparison in found]
    return Table(["metric", "variant", "state", "harm at least", "limit", "p, always valid"], rows)


def _guarded(comparison: Comparison, difference: str) -> list[str]:
    match comparison.harm:
        case Harm() as harm:
            state = "BREACHED" if harm.breached else "holds"
            bound = words.UNTOLD if isinstance(harm.bound, CannotTell) else words.effect(harm.bound, difference)
            return [state, bound, words.effect(harm.limit, difference), words.chance(harm.p_value)]
        case CannotTell(reason):
            return [f"cannot tell: {reason}", "", "", ""]
        case None:
            return ["", "", "", ""]


def health(report: Report) -> Table:
    """The findings, the worst first."""
    rows = [
        [finding.severity.value, finding.check, finding.cause, ", ".join(f"{name} {value:.6g}" for name, value in finding.numbers.items())]
        for finding in findings(report)
    ]
    return Table(["severity", "check", "cause", "numbers"], rows)


def arms(report: Report) -> Table:
    """What was seen of each variant."""
    counts = ("assigned", "exposed", "multiple", "overridden", "assignments", "outcomes", "late", "duplicates", "underived")
    rows = [[name, f"{arm.units:,}", *(f"{getattr(arm, count):,}" for count in counts)] for name, arm in report.result.arms.items()]
    return Table(["variant", "counted", *counts], rows)


def segments(report: Report) -> Table:
    """The metric that decides, by segment."""
    difference, rows = report.result.difference, []
    for segment in report.segments:
        match segment.estimate:
            case CannotTell(reason):
                told = [f"cannot tell: {reason}", "", ""]
            case Estimate() as found:
                ends = (found.fixed.interval, found.always_valid.interval)
                told = [words.effect(found.effect, difference), *(words.interval(end, difference) for end in ends)]
        rows.append([segment.segment, segment.variant, f"{segment.units:,}", *told])
    return Table(["segment", "variant", "units", "effect", _interval(report), "always valid"], rows)


def spread(report: Report, metric: str) -> Table:
    """Exact quantiles of units' values."""
    found = [one for one in report.spreads if one.metric == metric]
    levels = list(dict.fromkeys(level for one in found for level in one.quantiles))
    rows = [[one.variant, f"{one.units:,}", *(words.number(one.quantiles.get(level)) for level in levels)] for one in found]
    return Table(["variant", "units", *(f"{float(level) * 100:g} %" for level in levels)], rows)


def quantiles(report: Report) -> Table:
    """Metrics that are a quantile of outcomes."""
    rows = [
        [f"{q.metric}, {q.quantile:.4g}", q.variant, *map(words.number, (q.control, q.treatment)), *_told(q, report.result.difference)]
        for q in report.quantiles
    ]
    return Table(["metric", "variant", "control", "treatment", "effect", _interval(report), "p"], rows)


def crosstab(one: Crosstab) -> Table:
    """How many of each variant did it, and how many did not."""
    rows = [
        [name, f"{did:,}", f"{did_not:,}", words.percent(did / (did + did_not)) if did + did_not else "-"]
        for name, (did, did_not) in one.rows.items()
    ]
    return Table(["variant", "did", "did not", "share"], rows)


def crosstab_told(one: Crosstab) -> str:
    """What Pearson's test says of a table."""
    if one.cannot_tell or one.statistic is None or one.cramers_v is None:
        return f"Chi-square cannot be told: {one.cannot_tell}."
    degrees = words.plural(one.degrees or 0, "degree")
    return f"Chi-square {one.statistic:.4g} with {degrees} of freedom, p {words.chance(one.p_value)}, Cramer's V {one.cramers_v:.3g}."


def sensitivity(report: Report) -> Table:
    """The same question in other ways."""
    rows = [[s.metric, s.variant, s.name, *_told(s, report.result.difference), s.why] for s in report.sensitivity]
    return Table(["metric", "variant", "asked with", "effect", _interval(report), "p", "why"], rows)


def _told(asked: Sensitivity | QuantileEffect, difference: str) -> list[str]:
    if asked.cannot_tell:
        return [f"cannot tell: {asked.cannot_tell}", "", ""]
    effect = "" if asked.effect is None else words.effect(asked.effect, difference)
    interval = "" if asked.interval is None else words.interval(asked.interval, difference)
    return [effect, interval, words.chance(asked.p_value)]


def trends(report: Report) -> Table:
    """How effects change with the days since the exposure."""
    return Table(["metric", "variant", "change a day", "standard error", "p"], [_trend(one, report) for one in report.trends])


def _trend(one: AgeTrend, report: Report) -> list[str]:
    if one.slope is None or one.std_error is None:
        return [one.metric, one.variant, f"cannot tell: {one.cannot_tell}", "", ""]
    slope, error = (words.effect(value, report.result.difference) for value in (one.slope, one.std_error))
    return [one.metric, one.variant, slope, error.lstrip("+"), words.chance(one.p_value)]


def sources(report: Report) -> Table:
    """The offsets that all numbers are as of."""
    rows = [
        [partition, topic, f"{offset:,}"]
        for partition, topics in sorted(report.result.offsets.items(), key=lambda item: int(item[0]))
        for topic, offset in sorted(topics.items())
    ]
    return Table(["partition", "topic", "records below"], rows)


def all_tables(report: Report) -> Iterable[tuple[str, Table]]:
    """Every table with its title, for forms without charts."""
    yield "Metrics", comparisons(report)
    yield "Cannot tell", untold(report)
    yield "Guardrails", guardrails(report)
    yield "Health", health(report)
    yield "Arms", arms(report)
    yield "Tests", tests(report)
    yield "Mixture SPRT", mixtures(report)
    yield "Planned looks", looks(report)
    yield "Quantiles", quantiles(report)
    for metric in dict.fromkeys(one.metric for one in report.spreads):
        yield f"Units' values of {metric}, quantiles", spread(report, metric)
    for one in report.crosstabs:
        yield f"{one.metric} as a table", crosstab(one)
    yield "Novelty", trends(report)
    yield "Segments", segments(report)
    yield "Sensitivity", sensitivity(report)
    yield "Offsets covered", sources(report)


def _interval(report: Report) -> str:
    return f"{words.level(report.result.alpha)} interval"

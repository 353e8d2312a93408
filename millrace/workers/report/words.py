"""Numbers and verdicts as a person reads them, the same in a page and in text."""

from __future__ import annotations

from millrace.schemas.evidence import CannotTell
from millrace.schemas.result import Comparison, Estimate, Interval, MetricArm, Verdict

VERDICTS = {
    Verdict.IMPLEMENT: "Implement",
    Verdict.REJECT: "Reject",
    Verdict.CONTINUE: "Go on",
    Verdict.INVALID: "Do not trust it",
}
UNTOLD = "cannot tell"


def effect(value: float, difference: str) -> str:
    """An effect with its sign, as a share or in the metric's units.

    >>> effect(0.0312, "relative"), effect(-1.5, "absolute")
    ('+3.12 %', '-1.5')
    """
    return f"{value * 100:+.3g} %" if difference == "relative" else f"{value:+.4g}"


def interval(ends: Interval, difference: str) -> str:
    """An interval of effects.

    >>> interval((-0.01, 0.05), "relative")
    '[-1 %, +5 %]'
    """
    return f"[{effect(ends[0], difference)}, {effect(ends[1], difference)}]"


def chance(p: float | None) -> str:
    """A p-value or a probability; nothing where there is none.

    >>> chance(0.04321), chance(0.00001), chance(None)
    ('0.0432', '< 0.0001', '')
    """
    if p is None:
        return ""
    return "< 0.0001" if p < 0.0001 else f"{p:.3g}"


def percent(share: float) -> str:
    """A share, which is not certain where it only rounds to it.

    >>> percent(0.93), percent(0.99999), percent(0.00001), percent(1.0)
    ('93.0 %', '> 99.9 %', '< 0.1 %', '100.0 %')
    """
    if 0.9995 <= share < 1.0:
        return "> 99.9 %"
    return "< 0.1 %" if 0.0 < share < 0.0005 else f"{share * 100:.1f} %"


def number(value: float | None) -> str:
    """A number in a metric's own units.

    >>> number(0.123456), number(1234567.0), number(None)
    ('0.12346', '1,234,567', '-')
    """
    if value is None:
        return "-"
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e15 else f"{value:.5g}"


def mean(arm: MetricArm) -> str:
    """An arm's mean, or that there is none."""
    return UNTOLD if isinstance(arm.mean, CannotTell) else number(arm.mean)


def cells(comparison: Comparison, difference: str) -> list[str]:
    """Effect, fixed interval, always-valid interval, always-valid p-value (corrected, where it is), chance to win."""
    match comparison.estimate:
        case CannotTell():
            return [UNTOLD, "", "", "", ""]
        case Estimate() as found:
            at_any_time = found.always_valid
            p = at_any_time.p_value if at_any_time.adjusted_p_value is None else at_any_time.adjusted_p_value
            return [
                effect(found.effect, difference),
                interval(found.fixed.interval, difference),
                interval(at_any_time.interval, difference),
                chance(p),
                percent(found.bayesian.chance_to_win),
            ]


CELLS = ["effect", "at one look", "always valid", "p, always valid", "chance to win"]
"""The headings of ``cells``."""


def level(alpha: float) -> str:
    """The level of an interval.

    >>> level(0.05), level(0.05 / 3)
    ('95 %', '98.33 %')
    """
    return f"{(1 - alpha) * 100:.4g} %"


def plural(count: int, noun: str) -> str:
    """So many of something.

    >>> plural(1, "unit"), plural(1200, "unit")
    ('1 unit', '1,200 units')
    """
    return f"{count:,} {noun}{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """A time that has passed, in the unit that a person would take.

    >>> duration(90), duration(7_500), duration(200_000)
    ('2 minutes', '2.1 hours', '2.3 days')
    """
    if seconds < 3_600:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3_600:.1f} hours" if seconds < 86_400 else f"{seconds / 86_400:.1f} days"

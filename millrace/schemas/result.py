"""The judged experiment, as of named offsets."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from millrace.schemas.event import Event, Name, Time
from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.metric import Role
from millrace.schemas.moments import Arm

Interval = tuple[float, float]


class Severity(StrEnum):
    """How much a finding weighs: nothing can be concluded, be careful, or good to know."""

    INVALID = "invalid"
    WARNING = "warning"
    NOTE = "note"


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that speaks against trusting the experiment: which check, how bad, why, and the numbers that led there."""

    check: str
    severity: Severity
    cause: str
    variant: str = ""
    metric: str = ""
    numbers: dict[str, float] = {}


class Verdict(StrEnum):
    """What to do with the experiment."""

    IMPLEMENT = "implement"
    REJECT = "reject"
    CONTINUE = "continue"
    INVALID = "invalid"


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What to do, for which variant, by which rule, and the numbers that led there."""

    verdict: Verdict
    rule: str
    reason: str
    variant: str = ""
    numbers: dict[str, float] = {}


class FixedEvidence(Struct, frozen=True, kw_only=True):
    """Right if looked at once, at a time that was set before."""

    interval: Interval
    p_value: float
    adjusted_p_value: float | None = None
    level: float | UnsetType = UNSET
    """The level of the interval, where it is not the result's: it goes with the adjusted p-value."""


class LargestEvidence(Struct, frozen=True, kw_only=True):
    """The mixture SPRT's largest evidence over all looks so far: the judge's state, not a function of these offsets alone."""

    log_evalue: float
    effect: float
    """The effect at the look that had it."""
    p_value: float
    """min(1, 1 / largest e-value)."""
    adjusted_p_value: float | None = None


class MixtureEvidence(Struct, frozen=True, kw_only=True, tag_field="type", tag="mixture"):
    """The mixture SPRT at these offsets; what looks back at earlier looks stands apart, in ``so_far``.

    The interval's level goes with the corrected p-values of all looks: with Benjamini-Hochberg it depends on how many of them are small.
    """

    tau: float
    """The standard deviation of plausible effects that it was made with, in the units of the difference."""
    log_evalue: float
    """The natural logarithm of this look's e-value against no effect."""
    interval: Interval
    level: float | UnsetType = UNSET
    """The level of the interval, where it is not the result's: it goes with the adjusted p-value."""
    so_far: LargestEvidence


class AnytimeEvidence(Struct, frozen=True, kw_only=True):
    """Right at every look. ``smallest_p_value`` is over all looks so far: the judge's state, not a function of these offsets alone."""

    interval: Interval
    p_value: float
    smallest_p_value: float | None = None
    adjusted_p_value: float | None = None
    level: float | UnsetType = UNSET
    """The level of the interval, where it is not the result's: it goes with the adjusted p-value."""
    mixture: MixtureEvidence | CannotTell | None = None
    """None in a result that was judged before there was one."""


class BayesianEvidence(Struct, frozen=True, kw_only=True):
    """The posterior of the effect. ``risk`` is the expected loss of choosing the control, and of choosing the treatment."""

    lift: float
    std: float
    interval: Interval
    chance_to_win: float
    risk: Interval


class Estimate(Struct, frozen=True, kw_only=True, tag_field="type", tag="estimate"):
    """A treatment against the control, on one metric."""

    effect: float
    std_error: float
    fixed: FixedEvidence
    always_valid: AnytimeEvidence
    bayesian: BayesianEvidence
    cohens_d: float | CannotTell
    adjusted: bool = False
    """Whether a covariate took out variance (CUPED)."""


class Harm(Struct, frozen=True, kw_only=True, tag_field="type", tag="harm"):
    """A guardrail's one-sided always-valid test: whether the harm exceeds its limit."""

    limit: float
    bound: float | CannotTell
    """The smallest harm that cannot be ruled out, in the units of the difference: above the limit it is breached."""
    p_value: float
    breached: bool


class LookEvidence(Struct, frozen=True, kw_only=True, tag_field="type", tag="look"):
    """The newest look of the rule ``group_sequential``, as of when it was made: between looks nothing of it changes."""

    number: int
    """Which of the planned looks it is, from 1; one that was skipped, because units came too fast, keeps its number."""
    planned: int
    """How many looks are planned."""
    units: tuple[int, ...]
    """Units that counted at each look that was made, this one last."""
    fraction: float
    """The share of the planned units that counted."""
    last: bool
    """Whether it spent what was left of the level: no look comes after it."""
    level: float
    """What of alpha all looks of this comparison share, after the correction for the family."""
    effect: float
    std_error: float
    z: float
    boundary: float
    """The size of z from which on it crosses at this look."""
    crossed: bool
    nominal_alpha: float
    """What an ordinary two-sided p-value must be below at this look."""
    interval: Interval
    """The repeated confidence interval: valid at all looks together."""


class MetricArm(Struct, frozen=True, kw_only=True):
    """One arm on one metric, in the metric's own units."""

    units: int
    mean: float | CannotTell
    """Of a ratio: the quotient of the sums."""
    variance: float = 0.0


class Comparison(Struct, frozen=True, kw_only=True):
    """One treatment on one metric."""

    variant: str
    estimate: Estimate | CannotTell
    harm: Harm | CannotTell | None = None
    look: LookEvidence | CannotTell | None = None
    """Of the rule ``group_sequential``, from its first look on."""


class MetricResult(Struct, frozen=True, kw_only=True):
    """One metric: its arms, and each treatment against the control."""

    name: str
    kind: Kind
    role: Role
    arms: dict[str, MetricArm]
    comparisons: tuple[Comparison, ...]


class Result(Event, frozen=True):
    """The judged experiment: a function of the plan and the moments at these offsets.

    But for what looks back at earlier looks: the p-values that are called smallest, what the mixture SPRT calls ``so_far``, the sequential
    sample ratio, whose largest evidence so far counts, the looks of the rule ``group_sequential``, and the decisions of that rule and of
    ``fixed``, which are made once.
    """

    id: Annotated[str, Meta(description="Hash of experiment, plan version and offsets.")]
    experiment: Annotated[Name, Meta(description="The experiment.")]
    plan_version: Annotated[int, Meta(description="The version of the plan that it was judged by.")]
    time: Annotated[Time, Meta(description="When it was judged.")]
    offsets: Annotated[
        dict[str, dict[str, int]], Meta(description="Source partition, topic, and the offset below which everything is in it.")
    ]
    difference: Annotated[Name, Meta(description="Whether effects are relative or absolute.")]
    alpha: Annotated[float, Meta(description="The level of intervals and tests.")]
    units: Annotated[int, Meta(description="Units that count, over all arms.")]
    decision: Annotated[Decision, Meta(description="What to do, by which rule, and why.")]
    arms: Annotated[dict[str, Arm], Meta(description="Variant to what was seen of it.")]
    metrics: Annotated[tuple[MetricResult, ...], Meta(description="The metrics, in the plan's order.")]
    health: Annotated[tuple[Finding, ...], Meta(description="What speaks against trusting it, the worst first.")] = ()
    late: Annotated[int, Meta(description="Outcomes that came too late to count.")] = 0

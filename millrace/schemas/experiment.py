"""The plan of an experiment, as a version on the control topic ``experiments``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from millrace.schemas.event import Event, Name, Time
from millrace.schemas.metric import Metric
from millrace.schemas.policy_state import Feature, features_of

Share = Annotated[float, Meta(ge=0, le=1)]
Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=0)]


class State(StrEnum):
    """Where an experiment stands in its life. Only a running one assigns."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    COMPLETED = "completed"


class Test(StrEnum):
    """How a condition compares the context's value with its own."""

    __test__ = False  # pytest would take its name for a test's

    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    RANGE = "range"
    VERSION = "version"
    """``[low, high)`` of dotted versions, either of which may be null: 1.9 is below 1.10."""


class Unit(StrEnum):
    """What is randomised and analysed: the request's unit, which keeps its variant, or each request by itself."""

    UNIT = "unit"
    REQUEST = "request"


class Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a plan: frozen, and refusing keys that it does not know."""


class Condition(Part, frozen=True):
    """One condition on a request's context. ``range`` and ``version`` take ``[low, high)``, either of which may be null."""

    field: Annotated[str, Meta(min_length=1)]
    test: Test
    value: Any
    negate: bool = False


class Variant(Part, frozen=True):
    """One arm: its share of the units by weight, and the model that answers for it, where it chooses one."""

    name: Word
    weight: Annotated[float, Meta(ge=0)] = 1.0
    model: Word | None = None
    parameters: dict[str, Any] = {}


class Layer(Part, frozen=True):
    """Experiments of one layer with ranges apart share no unit: a unit's place in the layer is in one range at most."""

    name: Word
    low: Share = 0.0
    high: Share = 1.0


class RampStep(Part, frozen=True):
    """From this time on, this share of what ``sample`` allows takes part."""

    at: Time
    share: Share


class Span(Part, frozen=True):
    """A part [low, high) of the variant buckets, and the variant that it gives."""

    low: Share
    high: Share
    variant: Word


class Policy(StrEnum):
    """How weights follow from what is known. Those of a plan without one are fixed."""

    THOMPSON = "thompson"
    UCB = "ucb"
    EPSILON_GREEDY = "epsilon_greedy"
    LIN_TS = "lin_ts"
    SQUARE_CB = "square_cb"
    CONTEXTUAL_EPSILON_GREEDY = "contextual_epsilon_greedy"
    CUSTOM = "custom"


CONTEXTUAL = frozenset({Policy.LIN_TS, Policy.SQUARE_CB, Policy.CONTEXTUAL_EPSILON_GREEDY})


class Allocation(Part, frozen=True):
    """Weights that are learnt. ``metric`` names the plan's metric that is the reward; ``floor`` is every arm's least chance.

    The policy is computed anew when something was learnt, at most every ``every_seconds``. Until each arm has ``minimal_units``
    requests, arms share alike.
    """

    policy: Policy
    metric: str
    floor: Annotated[float, Meta(ge=0, lt=0.5)] = 0.01
    every_seconds: Annotated[float, Meta(ge=1)] = 10.0
    minimal_units: Count = 100
    epsilon: Share = 0.1
    exploration: Positive = 1.0
    """How far UCB and LinTS look beyond the estimate, in standard deviations; SquareCB's gamma."""
    features: dict[str, tuple[float, float]] = {}
    """Contextual: fields of the request's context that are numbers, each with the ends of its range: it is cut to them, and scaled to
    [-1, 1]. The policy's coefficients are in the order of the names."""
    entry_point: str = ""
    """Custom: the name of an installed entry point of the group ``millrace.policies``."""


class Correction(StrEnum):
    """How p-values of several metrics and variants are corrected."""

    NONE = "none"
    BONFERRONI = "bonferroni"
    HOLM = "holm"
    BENJAMINI_HOCHBERG = "benjamini_hochberg"


class Rule(StrEnum):
    """Which evidence decides.

    ``always_valid`` and ``msprt`` may look at any time, ``group_sequential`` at planned numbers of units, ``fixed`` once, after the
    minimal run time and units.
    """

    ALWAYS_VALID = "always_valid"
    MSPRT = "msprt"
    GROUP_SEQUENTIAL = "group_sequential"
    FIXED = "fixed"
    BAYESIAN = "bayesian"


LEAST_STEP = 0.001
"""Planned looks closer together than this share of the information are refused: integrating between them would need thousands of nodes."""


class Spending(StrEnum):
    """How planned looks are given alpha over the information: late and strict at first, or evenly."""

    OBRIEN_FLEMING = "obrien_fleming"
    POCOCK = "pocock"


class Looks(Part, frozen=True):
    """When the rule ``group_sequential`` looks: once so many of the planned units count, over all arms; then never again."""

    units: Annotated[int, Meta(ge=1)]
    """Units that count at the last look."""
    fractions: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = (0.25, 0.5, 0.75, 1.0)
    """The share of them at each look; the last is 1."""
    spending: Spending = Spending.OBRIEN_FLEMING


class NormalPrior(Part, frozen=True):
    """What was believed of the effect before: a normal distribution, in the units of the analysis' difference."""

    mean: float = 0.0
    variance: Positive = 1.0


class Analysis(Part, frozen=True):
    """How the experiment is judged."""

    alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.05
    difference: Annotated[str, Meta(pattern="^(relative|absolute)$")] = "relative"
    rule: Rule = Rule.ALWAYS_VALID
    tuning: Positive = 5_000.0
    """The number of units at which the confidence sequence is to be narrowest."""
    tau: Positive | None = None
    """The mixture SPRT's standard deviation of plausible effects, in the units of the difference. Left out, it is each metric's
    ``minimal_effect``; of a metric without one, that of the confidence sequence, whose mixture ``tuning`` sets."""
    looks: Looks | None = None
    """When the rule ``group_sequential`` looks; of no other rule."""
    correction: Correction = Correction.HOLM
    prior: NormalPrior | None = None
    chance_to_win: Annotated[float, Meta(gt=0.5, lt=1)] = 0.95
    """The rule ``bayesian`` implements above this, rejects below its complement."""
    minimal_units: Count = 100
    """Units that each arm must have before anything is decided."""
    minimal_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """How long it must have run before anything is decided."""
    maximal_seconds: Annotated[float, Meta(gt=0)] | None = None
    """After this long, what is not decided is rejected: there is no effect worth waiting for."""
    lateness_seconds: Annotated[float, Meta(ge=0)] = 3_600.0
    """An outcome is late, and not counted, where its time is older than the newest before it on its partition, less this."""
    ratio_alpha: Annotated[float, Meta(gt=0, lt=0.5)] = 0.001
    """The level of the sample ratio's test."""
    stop_on_harm: bool = False
    """Whether a guardrail's breach stops the experiment, or signals alone."""


class Plan(Event, frozen=True):
    """One version of an experiment's plan. Version n+1 is valid only after n: the first record of a version wins."""

    name: Annotated[Word, Meta(description="The experiment.", extra={"low_cardinality": True})]
    version: Annotated[int, Meta(ge=1, description="The plan's version.")]
    state: Annotated[State, Meta(description="draft, running, paused, stopped or completed.")]
    time: Annotated[Time, Meta(description="When this version was written.")]
    salt: Annotated[str, Meta(min_length=1, description="What the hashes are salted with; it never changes while running.")]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, description="The arms; the first is the control.")]
    unit: Annotated[Unit, Meta(description="What is randomised and analysed: unit or request.")] = Unit.UNIT
    layer: Annotated[Layer | None, Meta(description="The layer that it lives in, and its range there.")] = None
    holdout: Annotated[
        Share, Meta(description="The share of units that no experiment with such a share may touch: the same units in all.")
    ] = 0.0
    sample: Annotated[Share, Meta(description="The share of targeted units that take part.")] = 1.0
    ramp: Annotated[tuple[RampStep, ...], Meta(description="What share of the sample takes part from when on; empty means all.")] = ()
    target_units: Annotated[tuple[str, ...], Meta(description="Units that alone may take part; empty means all.")] = ()
    targeting: Annotated[tuple[Condition, ...], Meta(description="All must hold for a request to take part.")] = ()
    overrides: Annotated[dict[str, str], Meta(description="Units whose variant is named by hand.")] = {}
    models: Annotated[
        tuple[Word, ...], Meta(description="The routes it takes part in; empty means all, and requests without a model.")
    ] = ()
    owner: Annotated[Name, Meta(description="Who answers for it.")] = ""
    hypothesis: Annotated[str, Meta(description="What it is to show.")] = ""
    spans: Annotated[tuple[Span, ...], Meta(description="Which buckets give which variant; empty means by weight, in order.")] = ()
    allocation: Annotated[Allocation | None, Meta(description="How weights are learnt; null means that they are fixed.")] = None
    metrics: Annotated[tuple[Metric, ...], Meta(description="What is measured.")] = ()
    segments: Annotated[dict[str, tuple[str, ...]], Meta(description="Fields of the context, and the values that are told apart.")] = {}
    analysis: Annotated[Analysis, Meta(description="How it is judged.")] = Analysis()
    created: Annotated[Time | None, Meta(description="When its first version was written.")] = None
    started: Annotated[Time | None, Meta(description="When it first began to run.")] = None
    conclusion: Annotated[str, Meta(description="What was concluded, by whom or by which rule.")] = ""

    @property
    def id(self) -> str:
        """What its headers call it: the first record of a version is the one that counts."""
        return f"experiments/{self.name}/{self.version}"

    def learnt_over(self, metric: str) -> tuple[Feature, ...]:
        """The features over which a metric is summed too: those of a contextual policy whose reward it is; of any other metric, none."""
        allocation = self.allocation
        if allocation is None or allocation.policy not in CONTEXTUAL or allocation.metric != metric:
            return ()
        return features_of(allocation.features)

"""Which variant an experiment gives a unit, and why, or why none: every gate with its bucket, by the code that assigns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from millrace.schemas.experiment import Plan, Span, State, Unit
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.request import Request
from millrace.streams.assign import Experiment, fits
from millrace.streams.buckets import bucket
from millrace.streams.eligible import Asked, Gate, GateName, Hashed
from millrace.streams.spans import of_plan

TOLD = ("variant", "propensity", "model", "policy_version", "propensities", "features", "segments")
"""What an explanation takes over from the assignment."""


class Passage(Struct, frozen=True, kw_only=True):
    """One gate: what it asks, whether it is passed, and, where it hashes, the bucket and the range [low, high) that lets through."""

    gate: GateName
    asks: str
    passed: bool
    bucket: float | None = None
    low: float | None = None
    high: float | None = None


class Explanation(Struct, frozen=True, kw_only=True):
    """What one experiment does with one request. ``variant`` and what follows are null where it does not take part.

    ``overridden``: the plan names the unit's variant by hand, so that all gates but state and models are passed over.
    """

    experiment: str
    plan_version: int
    state: State
    unit_id: str
    request_id: str
    gates: tuple[Passage, ...]
    overridden: bool
    takes_part: bool
    variant_bucket: float
    spans: tuple[Span, ...]
    """Which buckets give which variant; empty where a policy's propensities decide."""
    variant: str | None = None
    propensity: float | None = None
    model: str | None = None
    policy_version: int | None = None
    propensities: dict[str, float] = {}
    features: dict[str, float] = {}
    segments: dict[str, str] = {}

    @property
    def because(self) -> str:
        """The reason in one sentence: of what is not passed, the first."""
        failed = next((gate for gate in self.gates if not gate.passed and not self._passed_over(gate)), None)
        if failed is not None:
            if failed.bucket is not None:
                return f"{failed.gate}: its bucket {failed.bucket:.6f} is outside [{failed.low:g}, {failed.high:g})"
            return f"{failed.gate}: it does not hold that {failed.asks}"
        if self.overridden:
            return "the plan names its variant by hand"
        return f"its variant bucket is {self.variant_bucket:.6f}"

    def _passed_over(self, gate: Passage) -> bool:
        return self.overridden and gate.gate not in (GateName.STATE, GateName.MODELS)


def explain(plan: Plan, request: Request, now: datetime, policy: PolicyVersion | None = None) -> Explanation:
    """What a plan does with a request at a time. Raises Never for a plan that cannot assign."""
    used = policy if policy is not None and fits(plan, policy) else None
    experiment = Experiment(plan, used)
    asked = experiment.gates.asked([request], [request.unit_id.encode()], now)
    running = plan.state is State.RUNNING
    state = Passage(gate=GateName.STATE, asks="the experiment is running", passed=running)
    (made,) = experiment.assign(asked.requests, asked.units, now) if running else (None,)
    explanation = Explanation(
        experiment=plan.name,
        plan_version=plan.version,
        state=plan.state,
        unit_id=request.unit_id,
        request_id=request.id,
        gates=(state, *_passages([*experiment.gates.first, *experiment.gates.others], asked)),
        overridden=request.unit_id in plan.overrides,
        takes_part=made is not None,
        variant_bucket=bucket(f"{plan.salt}:variant:{request.id if plan.unit is Unit.REQUEST else request.unit_id}".encode()),
        spans=() if used is not None else of_plan(plan),
    )
    return explanation if made is None else replace(explanation, **{name: getattr(made, name) for name in TOLD})


def _passages(gates: Sequence[Gate], asked: Asked) -> list[Passage]:
    return [_passage(gate, asked) for gate in gates]


def _passage(gate: Gate, asked: Asked) -> Passage:
    passed = bool(gate.pick(asked, [0]))
    if not isinstance(gate, Hashed):
        return Passage(gate=gate.name, asks=gate.about, passed=passed)
    low, high = gate.limits(asked.now)
    return Passage(gate=gate.name, asks=gate.about, passed=passed, bucket=gate.bucket(asked, 0), low=low, high=high)

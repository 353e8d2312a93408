"""Samples of what experiments are made of, with every field set."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec import Raw

from millrace.schemas.evidence import CannotTell, Kind, Moments
from millrace.schemas.experiment import (
    Allocation,
    Analysis,
    Condition,
    Correction,
    Layer,
    Looks,
    NormalPrior,
    Plan,
    Policy,
    RampStep,
    Rule,
    Span,
    Spending,
    State,
    Test,
    Unit,
    Variant,
)
from millrace.schemas.metric import Aggregation, Direction, Metric, Role, Source
from millrace.schemas.moments import Arm, PartitionMoments, to_sums
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.result import (
    AnytimeEvidence,
    BayesianEvidence,
    Comparison,
    Decision,
    Estimate,
    Finding,
    FixedEvidence,
    Harm,
    LargestEvidence,
    LookEvidence,
    MetricArm,
    MetricResult,
    MixtureEvidence,
    Result,
    Severity,
    Verdict,
)
from millrace.schemas.signal import Signal, SignalKind

TIME = datetime(2026, 3, 14, 15, 9, 26, 535_897, UTC)

PLAN = Plan(
    name="checkout",
    version=2,
    state=State.RUNNING,
    time=TIME,
    salt="checkout-2026",
    variants=(Variant(name="control", model="approve"), Variant(name="challenger", model="approve-next", parameters={"threshold": 0.4})),
    sample=0.5,
    targeting=(Condition(field="country", test=Test.IN, value=["DE", "FR"]), Condition(field="age", test=Test.RANGE, value=[18, None])),
    overrides={"customer-1": "control"},
    models=("approve",),
    owner="pricing",
    hypothesis="the new model approves more good orders",
    unit=Unit.REQUEST,
    layer=Layer(name="payments", low=0.25, high=0.75),
    holdout=0.05,
    ramp=(RampStep(at=TIME, share=0.1), RampStep(at=TIME + timedelta(days=1), share=1.0)),
    target_units=("customer-42",),
    spans=(Span(low=0.0, high=0.5, variant="control"), Span(low=0.5, high=1.0, variant="challenger")),
    allocation=Allocation(policy=Policy.SQUARE_CB, metric="revenue", floor=0.05, every_seconds=30.0, features={"amount": (0.0, 500.0)}),
    metrics=(
        Metric(
            name="revenue",
            outcome="paid",
            role=Role.PRIMARY,
            resolution=0.01,
            cap=10_000.0,
            denominator=None,
            window_seconds=604_800.0,
            minimal_effect=0.01,
        ),
        Metric(
            name="returned-per-item",
            outcome="returned",
            kind=Kind.RATIO,
            role=Role.GUARDRAIL,
            direction=Direction.DECREASE,
            denominator=Source(outcome="items", aggregation=Aggregation.COUNT),
            limit=0.02,
        ),
    ),
    segments={"country": ("DE", "FR")},
    analysis=Analysis(
        alpha=0.01,
        rule=Rule.GROUP_SEQUENTIAL,
        tau=0.02,
        looks=Looks(units=20_000, fractions=(0.5, 1.0), spending=Spending.POCOCK),
        correction=Correction.BENJAMINI_HOCHBERG,
        prior=NormalPrior(variance=0.01),
        maximal_seconds=2_419_200.0,
        stop_on_harm=True,
    ),
    created=TIME - timedelta(days=1),
    started=TIME,
    conclusion="implement challenger: revenue rose by 4 % or more",
)
POLICY = PolicyVersion(
    experiment="checkout",
    version=7,
    plan_version=2,
    time=TIME,
    offsets={"0": {"assignments": 120, "outcomes-by-unit": 77}},
    weights={"control": 0.25, "challenger": 0.75},
    contextual=Raw(
        b'{"method":"square_cb","features":[{"name":"amount","low":0.0,"high":500.0}],"arms":'
        b'[{"n":120,"ready":true,"coefficients":[0.5,0.25],"root":[]},{"n":90,"ready":true,"coefficients":[0.5,-0.125],"root":[]}],'
        b'"exploration":30.0,"floor":0.05}'
    ),
)
MOMENTS = PartitionMoments(
    id="5a0a6c1d3be35c1c2c7c7a7c3a010b5a",
    experiment="checkout",
    plan_version=2,
    partition=3,
    time=TIME,
    offsets={"assignments": 120, "outcomes-by-unit": 77},
    metric="revenue",
    moments={"control": to_sums(Moments.of(12_990) + Moments.of(0)), "challenger|country=DE": to_sums(Moments.of(10**30, 3, -2))},
    arms={"control": Arm(assigned=3, exposed=2, outcomes=1, segments={"country=DE": 2})},
    digest="9d4a51a4a0d9f0a3f5c2e10b7e2f6f4c",
)
RESULT = Result(
    id="c2c7c7a7c3a010b5a5a0a6c1d3be35c1",
    experiment="checkout",
    plan_version=2,
    time=TIME,
    offsets={"3": {"assignments": 120, "outcomes-by-unit": 77}},
    difference="relative",
    alpha=0.05,
    units=2_000,
    decision=Decision(
        verdict=Verdict.IMPLEMENT,
        rule="always_valid",
        reason="revenue is above 0",
        variant="challenger",
        numbers={"low": 0.01},
    ),
    arms={"control": Arm(assigned=1_001, exposed=1_000), "challenger": Arm(assigned=1_003, exposed=1_001, multiple=1, late=4)},
    metrics=(
        MetricResult(
            name="revenue",
            kind=Kind.MEAN,
            role=Role.PRIMARY,
            arms={
                "control": MetricArm(units=1_000, mean=12.5, variance=4.0),
                "challenger": MetricArm(units=1_000, mean=13.0, variance=4.0),
            },
            comparisons=(
                Comparison(
                    variant="challenger",
                    estimate=Estimate(
                        effect=0.04,
                        std_error=0.0073,
                        fixed=FixedEvidence(interval=(0.0257, 0.0543), p_value=0.000_000_04, adjusted_p_value=0.000_000_08, level=0.025),
                        always_valid=AnytimeEvidence(
                            interval=(0.01, 0.07),
                            p_value=0.0004,
                            smallest_p_value=0.0003,
                            adjusted_p_value=0.0006,
                            level=0.025,
                            mixture=MixtureEvidence(
                                tau=0.02,
                                log_evalue=11.25,
                                interval=(0.0141, 0.0659),
                                level=0.025,
                                so_far=LargestEvidence(log_evalue=12.5, effect=0.042, p_value=0.0000037, adjusted_p_value=0.0000074),
                            ),
                        ),
                        bayesian=BayesianEvidence(
                            lift=0.0398, std=0.0073, interval=(0.0255, 0.0541), chance_to_win=0.999_999_9, risk=(0.0398, 1e-10)
                        ),
                        cohens_d=0.25,
                        adjusted=True,
                    ),
                    look=LookEvidence(
                        number=1,
                        planned=2,
                        units=(10_000,),
                        fraction=0.5,
                        last=False,
                        level=0.05,
                        effect=0.038,
                        std_error=0.01,
                        z=3.8,
                        boundary=2.157,
                        crossed=True,
                        nominal_alpha=0.031,
                        interval=(0.01643, 0.05957),
                    ),
                ),
            ),
        ),
        MetricResult(
            name="returned-per-item",
            kind=Kind.RATIO,
            role=Role.GUARDRAIL,
            arms={
                "control": MetricArm(units=1_000, mean=CannotTell("the denominator is 0")),
                "challenger": MetricArm(units=1_000, mean=0.02, variance=0.0196),
            },
            comparisons=(
                Comparison(
                    variant="challenger",
                    estimate=CannotTell("control: the denominator is 0"),
                    harm=Harm(limit=0.02, bound=0.01, p_value=0.6, breached=False),
                    look=CannotTell("control: the denominator is 0"),
                ),
            ),
        ),
    ),
    health=(
        Finding(
            check="sample_ratio",
            severity=Severity.WARNING,
            cause="arms are not as large as their weights say",
            variant="challenger",
            metric="revenue",
            numbers={"p_value": 0.002},
        ),
    ),
    late=4,
)
SIGNAL = Signal(
    id="7a7c3a010b5a5a0a6c1d3be35c1c2c7c",
    fingerprint="a0a6c1d3be35c1c2c7c7a7c3a010b5a5",
    time=TIME,
    kind=SignalKind.GUARDRAIL,
    subject="checkout",
    rule="returned-per-item/challenger",
    firing=True,
    severity="critical",
    message="returned-per-item of challenger is worse than its limit",
    value=0.031,
    threshold=0.02,
    offsets={"3": {"assignments": 120, "outcomes-by-unit": 77}},
    evidence={"p_value": 0.00001},
)

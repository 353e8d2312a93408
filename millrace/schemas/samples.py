"""One sample of every event, with every field set: the examples of the AsyncAPI document, and what golden tests compare with.

The bytes they once had are kept under ``tests/golden/samples`` and must decode for ever.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec import Raw

from millrace.schemas.assignment import Assignment
from millrace.schemas.commit import Commit, Range
from millrace.schemas.dead_letter import Allowance, DeadLetter
from millrace.schemas.event import Event
from millrace.schemas.experiment_samples import MOMENTS, PLAN, POLICY, RESULT, SIGNAL, TIME
from millrace.schemas.model import Golden, ModelVersion, Output, Route, Share
from millrace.schemas.outcome import Outcome, UnitOutcome
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.request import Request

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
TOPIC_ID = "Zk3uAkyqSlu4Q8TTc7Kx2w"

REQUEST = Request(
    id="order-1729",
    unit_id="customer-42",
    time=TIME,
    model="approve",
    features=Raw(b'{"amount":129.9,"items":3}'),
    entities={"customer": "42"},
    context={"country": "DE", "returning": True},
    deadline=TIME + timedelta(milliseconds=250),
)
OUTCOME = Outcome(
    unit_id="customer-42", metric="paid", value=129.9, id="payment-77", request_id="order-1729", time=TIME + timedelta(hours=3)
)
UNIT_OUTCOME = UnitOutcome(
    id="2c7c7a7c3a016c1d3be35c1c0b5a0a6c",
    unit_id="customer-42",
    metric="paid",
    value=129.9,
    time=TIME + timedelta(hours=3),
    request_id="order-1729",
    outcome_id="payment-77",
)
ASSIGNMENT = Assignment(
    id="6c1d3be35c1c0b5a0a6c2a7c7a7a3c01",
    request_id="order-1729",
    unit_id="customer-42",
    time=TIME,
    experiment="checkout",
    plan_version=2,
    variant="challenger",
    bucket=0.7310585786300049,
    propensity=0.5,
    exposed=False,
    override=True,
    model="approve-next",
    policy_version=7,
    propensities={"control": 0.5, "challenger": 0.5},
    segments={"country": "DE"},
    features={"amount": 129.9},
)
PREDICTION = Prediction(
    id="0b7e2f6f4c9d4a51a4a0d9f0a3f5c2e1",
    request_id="order-1729",
    unit_id="customer-42",
    time=TIME,
    model="approve",
    version=3,
    digest=DIGEST,
    status=Status.OK,
    outputs={"probability": 0.875, "scores": [0.125, 0.875]},
    features=Raw(b'{"amount":129.9,"items":3}'),
    features_digest="a3f5c2e10b7e2f6f4c9d4a51a4a0d9f0",
    shadow=True,
    requested=TIME - timedelta(milliseconds=5),
    latency_seconds=0.0065,
    batch_records=17,
    cache="hit",
    error="",
)
MODEL = ModelVersion(
    name="approve",
    version=3,
    time=TIME,
    digest=DIGEST,
    size_bytes=4,
    input="input",
    features=("amount", "items"),
    outputs=(Output(name="probability", tensor="probabilities", column=1), Output(name="label", tensor="label")),
    operators=("LinearClassifier", "Normalizer"),
    golden=Golden(vector=(129.9, 3.0), outputs={"probability": 0.875, "label": 1.0}),
    defaults={"items": 1.0},
    data=b"test",
    location=f"sha256:{DIGEST}",
)
ROUTE = Route(name="approve", version=2, time=TIME, shares=(Share(version=2, weight=0.9), Share(version=3, weight=0.1)), shadows=(4,))
ALLOWANCE = Allowance(version=1, time=TIME, worker="inference", topic="requests", partition=3, through=1_729)
DEAD_LETTER = DeadLetter(
    id="d9f0a3f5c2e10b7e2f6f4c9d4a51a4a0",
    time=TIME,
    worker="inference",
    topic="requests",
    topic_id=TOPIC_ID,
    partition=3,
    offset=120,
    reason="Expected `str`, got `int` - at `$.unit_id`",
    key=b"customer-42",
    value=b'{"id":"order-1729","unit_id":42}',
    headers=(("content-type", b"application/json"), ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
)
COMMIT = Commit(
    id="51a4a0d9f0a3f5c2e10b7e2f6f4c9d4a",
    time=TIME,
    worker="inference",
    slot="inference-0",
    inputs=(Range(topic="requests", partition=3, start=100, end=121, topic_id=TOPIC_ID),),
    control={"models": 3, "routes": 2},
    lacking={"approve/4": "model 'approve' version 4 is being loaded"},
    watermarks={3: 1_773_500_966_535},
    records=21,
    emitted=42,
)

SAMPLES: dict[str, Event] = {
    "requests": REQUEST,
    "outcomes": OUTCOME,
    "outcomes-by-unit": UNIT_OUTCOME,
    "assignments": ASSIGNMENT,
    "predictions": PREDICTION,
    "experiments": PLAN,
    "policies": POLICY,
    "moments": MOMENTS,
    "results": RESULT,
    "signals": SIGNAL,
    "models": MODEL,
    "routes": ROUTE,
    "allowances": ALLOWANCE,
    "dead-letters": DEAD_LETTER,
    "commits": COMMIT,
}
"""Topic to its sample."""

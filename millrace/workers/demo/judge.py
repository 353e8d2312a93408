"""Whether each decision that ClickHouse holds is the one that had to be made. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from millrace.workers.demo.sites import Site
from millrace.workers.demo.traffic import Visit

TOLERANCE = 1e-4
"""ONNX computes in float32, the library that trained the models in float64."""
OK = "ok"


class Decision(Struct, frozen=True):
    """One decision as it was read back, a field None where its part is missing."""

    request_id: str
    unit_id: str
    variant: str | None
    model: str | None
    status: str | None
    phishing: float | None
    label: float | None


class Truth(Struct, frozen=True):
    """What must be: the model of each variant, and what each model says of each site by its number."""

    models: Mapping[str, str]
    probabilities: Mapping[str, Mapping[int, float]]

    @classmethod
    def of(cls, models: Mapping[str, str], sites: Sequence[Site], expected: Mapping[str, Sequence[float]]) -> Truth:
        """``expected`` holds each model's answers, in the order of the sites."""
        numbers = [site.number for site in sites]
        return cls(models, {name: dict(zip(numbers, answers, strict=True)) for name, answers in expected.items()})


def mistakes(visits: Iterable[Visit], decisions: Iterable[Decision], truth: Truth) -> list[str]:
    """What is wrong, a sentence for each decision that is. A decision that is missing is not wrong but lost."""
    asked = {visit.request_id: visit for visit in visits}
    found = []
    for decision in decisions:
        visit = asked.get(decision.request_id)
        fault = "was never asked for" if visit is None else _fault(visit, decision, truth)
        if fault:
            found.append(f"{decision.request_id} {fault}")
    return found


def _fault(visit: Visit, decision: Decision, truth: Truth) -> str | None:
    model = truth.models.get(decision.variant or "")
    if decision.unit_id != visit.unit_id:
        return f"is about {decision.unit_id}, not {visit.unit_id}"
    if model is None:
        return f"has no variant of the experiment but {decision.variant!r}"
    if decision.model != model:
        return f"has variant {decision.variant}, but was answered by {decision.model}"
    if decision.status != OK or decision.phishing is None:
        return f"was answered {decision.status}"
    expected = truth.probabilities[model][visit.site.number]
    if not math.isclose(decision.phishing, expected, abs_tol=TOLERANCE):
        return f"was answered {decision.phishing:.6f}, but {model} says {expected:.6f}"
    if decision.label is not None and bool(decision.label) is not visit.site.phishing:
        return f"has the label {decision.label:g}, which is another site's"
    return None

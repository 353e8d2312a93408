"""What a plan must be to assign and to be judged; each refusal names the field and what to do about it.

Who assigns, folds and judges goes by versions that pass alone (``plan_versions``): no plan runs in one worker and is ignored by another.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from msgspec import Struct

from millrace.schemas.errors import Never, UsageError
from millrace.schemas.experiment import Condition, Plan, State
from millrace.streams.metric_check import check_allocation, check_analysis, check_metrics
from millrace.streams.segments import NONE, OTHER
from millrace.streams.target import predicate

BEGUN = frozenset({State.RUNNING, State.PAUSED})
SEGMENT_FIELDS = 5
SEGMENT_VALUES = 20
SEGMENTED_ARMS = 2_000
"""Variants, in all and by each segment: a metric's moments are one record, which holds them up to a kilobyte each."""


def check(plan: Plan) -> None:
    """Raise Never naming the first field of a plan that means nothing, and what to do about it."""
    try:
        for part in (_finite, _variants, _spans, _who, _ramp, _segments, check_metrics, check_allocation, check_analysis):
            part(plan)
    except Never as error:
        raise Never(f"experiment {plan.name!r} version {plan.version}: {error}") from None


def can_assign(plan: Plan) -> bool:
    """Whether a version of a plan is one that workers go by; where it is not, the version before goes on."""
    try:
        check(plan)
    except Never:
        return False
    return True


def check_layer(plan: Plan, others: Iterable[Plan]) -> None:
    """Raise UsageError where another experiment that has begun holds a part of the plan's range of its layer."""
    for other in others:
        if other.name == plan.name or other.state not in BEGUN or not overlap(plan, other):
            continue
        theirs, mine = other.layer, plan.layer
        if theirs is not None and mine is not None:
            raise UsageError(
                f"experiment {plan.name}: `layer`: its range [{mine.low:g}, {mine.high:g}) of the layer {mine.name} overlaps"
                f" [{theirs.low:g}, {theirs.high:g}) of {other.name}, which is {other.state}: take a free range, or stop {other.name}"
            )


def overlap(one: Plan, other: Plan) -> bool:
    """Whether two plans share a part of a layer."""
    mine, theirs = one.layer, other.layer
    return mine is not None and theirs is not None and mine.name == theirs.name and mine.low < theirs.high and theirs.low < mine.high


def _finite(plan: Plan) -> None:
    for path, value in _floats(plan, ""):
        if not math.isfinite(value):
            raise Never(f"`{path}`: {value} is no number to compute with: write a finite one")


def _floats(value: Any, path: str) -> Iterator[tuple[str, float]]:
    """Every number of a plan that is a float, and where it stands."""
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _floats(getattr(value, name), f"{path}.{name}" if path else name)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _floats(item, f"{path}[{name!r}]")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _floats(item, f"{path}[{i}]")


def _variants(plan: Plan) -> None:
    names = [variant.name for variant in plan.variants]
    total = sum(variant.weight for variant in plan.variants)
    if len(set(names)) != len(names):
        raise Never("`variants`: two variants have one name; name each variant once")
    if not 0 < total < math.inf:
        raise Never("`variants`: the sum of the weights must be finite, and one of them above 0")
    unknown = sorted(set(plan.overrides.values()) - set(names))
    if unknown:
        raise Never(f"`overrides`: an override names the variant {unknown[0]!r}, which is none of {', '.join(names)}")


def _spans(plan: Plan) -> None:
    if not plan.spans:
        return
    ends = [0.0, *(span.high for span in plan.spans)]
    if [span.low for span in plan.spans] != ends[:-1] or ends[-1] != 1 or any(span.low >= span.high for span in plan.spans):
        raise Never("`spans`: they must follow one another from 0 to 1 without gap or overlap; leave them to `millrace experiments update`")
    unknown = sorted({span.variant for span in plan.spans} - {variant.name for variant in plan.variants})
    if unknown:
        raise Never(f"`spans`: they name {unknown[0]!r}, which is no variant; leave them to `millrace experiments update`")


def _who(plan: Plan) -> None:
    for i, condition in enumerate(plan.targeting):
        _condition(condition, f"targeting[{i}]")
    if plan.layer is not None and plan.layer.low >= plan.layer.high:
        raise Never(f"`layer`: [{plan.layer.low:g}, {plan.layer.high:g}) holds no unit: `low` must be below `high`")
    if plan.holdout >= 1:
        raise Never("`holdout`: it leaves every unit out: state a share below 1, such as 0.05")
    if "" in plan.target_units or len(set(plan.target_units)) != len(plan.target_units):
        raise Never("`target_units`: a unit is empty, or named twice: name each unit once")


def _condition(condition: Condition, path: str) -> None:
    try:
        predicate(condition)
    except Never as error:
        raise Never(f"`{path}`: {error}") from None


def _ramp(plan: Plan) -> None:
    for i, (before, after) in enumerate(pairwise(plan.ramp), 1):
        if before.at >= after.at:
            raise Never(f"`ramp[{i}].at`: {after.at.isoformat()} does not come after {before.at.isoformat()}: order the steps by time")
        if before.share > after.share:
            raise Never(f"`ramp[{i}].share`: {after.share:g} is below {before.share:g}: units would drop out; a ramp may only grow")


def _segments(plan: Plan) -> None:
    if len(plan.segments) > SEGMENT_FIELDS:
        raise Never(f"`segments`: {len(plan.segments)} fields; name {SEGMENT_FIELDS} at most, because each is counted for every unit")
    arms = len(plan.variants) * (1 + sum(len(values) + 2 for values in plan.segments.values()))
    if arms > SEGMENTED_ARMS:
        raise Never(f"`segments`: {len(plan.variants)} variants by each segment are {arms} arms; {SEGMENTED_ARMS} fit: name fewer values")
    for field, values in plan.segments.items():
        path = f"segments[{field!r}]"
        if not field or set("|=") & set(field):
            raise Never(f"`{path}`: a field's name must not be empty, nor contain | or =")
        if not 0 < len(values) <= SEGMENT_VALUES:
            raise Never(f"`{path}`: {len(values)} values; name 1 to {SEGMENT_VALUES}, all others are counted as {OTHER!r}")
        if {"", OTHER, NONE} & set(values) or len(set(values)) != len(values):
            raise Never(f"`{path}`: values must be different from each other, not empty, and neither {OTHER!r} nor {NONE!r}")

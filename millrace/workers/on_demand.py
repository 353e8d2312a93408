"""A result on demand: judged here and now by the judge's own function, from what is sealed on Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.experiment import Plan
from millrace.schemas.result import Result
from millrace.streams.judge import merge
from millrace.streams.judge.judge import judge
from millrace.streams.judge.known import Known, Plans
from millrace.streams.judge.past import Past
from millrace.streams.judge.recall import recall
from millrace.workers.results import look_up
from millrace.workers.sealed import Sealed, read


class OnDemand(Struct, frozen=True):
    """A result that was judged here and is not recorded, and the published one from which it took what looks back, if there is one."""

    result: Result
    before: Result | None


def judge_now(settings: Settings, versions: Sequence[Plan], now: datetime) -> OnDemand:
    """Judge an experiment by its newest plan, as of the newest sealed sums on Kafka. Raises Unavailable where none are sealed yet."""
    known, name = _known(versions), versions[-1].name
    before = look_up(settings, name)
    partitions = [_judged_from(number, one) for number, one in read(settings, name).items()]
    if not partitions:
        raise Unavailable(
            f"experiment {name} has nothing sealed yet: sums come from the role experimenter, a second after its first assignments;"
            " `millrace status` shows whether it runs"
        )
    by = None if before is None else next((plan for plan in versions if plan.version == before.plan_version), None)
    past = Past() if before is None or by is None else recall(before, by)
    return OnDemand(judge(known, partitions, past, now).result, None if by is None else before)


def _known(versions: Sequence[Plan]) -> Known:
    plans = Plans()
    for plan in versions:
        plans.observe(plan)
    known = plans.get(versions[-1].name)
    if known is None:
        raise UsageError(f"experiment {versions[-1].name} has no valid version")
    return known


def _judged_from(partition: int, one: Sealed) -> merge.Sealed:
    folded = {
        metric: merge.Folded(record.digest, record.plan_version, record.time, record.moments) for metric, record in one.metrics.items()
    }
    return merge.Sealed(partition=partition, offsets=one.seal.offsets, arms=one.seal.arms, metrics=folded)

"""The newest sealed set of an experiment's moments of each source partition, as the judge saw it: read from Kafka."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.evidence import Moments
from millrace.schemas.moments import PartitionMoments, from_gram_sums, from_sums, over_features
from millrace.schemas.policy_state import Gram
from millrace.schemas.topics import MOMENTS
from millrace.schemas.wire import codec


class Sealed(Struct, frozen=True):
    """One source partition: what it says of each metric, by arm, and the record that sealed it."""

    seal: PartitionMoments
    metrics: dict[str, PartitionMoments]

    def moments(self, metric: str) -> dict[str, Moments]:
        """A metric's moments, by arm; none of a metric that was never told of."""
        record = self.metrics.get(metric)
        return {} if record is None else {arm: from_sums(sums) for arm, sums in record.moments.items() if over_features(arm) is None}

    def grams(self, metric: str) -> dict[str, Gram]:
        """A metric's sums over features, by variant; none unless a contextual policy learns from it."""
        told = {} if (record := self.metrics.get(metric)) is None else record.moments
        return {variant: from_gram_sums(sums) for key, sums in told.items() if (variant := over_features(key)) is not None}


def newest(records: Iterable[PartitionMoments], experiment: str) -> dict[int, Sealed]:
    """By source partition, the newest set that was sealed. Records come in the order of the log; what no seal follows does not count."""
    open_sets: dict[int, dict[str, PartitionMoments]] = {}
    sealed: dict[int, Sealed] = {}
    for record in records:
        if record.experiment != experiment:
            continue
        metrics = open_sets.setdefault(record.partition, {})
        if record.metric:
            metrics[record.metric] = record
        else:
            sealed[record.partition] = Sealed(record, dict(metrics))
    return dict(sorted(sealed.items()))


def read(settings: Settings, experiment: str) -> dict[int, Sealed]:
    """What stands on the topic now. Raises Unavailable, and DecodeError for a record that is none."""
    decode = codec(MOMENTS).decode
    records = (decode(record.value, record.headers) for record in read_whole(settings, MOMENTS) if record.value is not None)
    return newest(records, experiment)

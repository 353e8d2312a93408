"""Compute an experiment's moments again from the records in ClickHouse, at the offsets that the stream names, and compare every integer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.answers import arms, moments
from millrace.infra.clickhouse.experiments.arms import arms_sql
from millrace.infra.clickhouse.experiments.as_of import AsOf, Ends, time_us
from millrace.infra.clickhouse.experiments.grams import grams, grams_sql
from millrace.infra.clickhouse.experiments.moments import moments_sql
from millrace.infra.kafka.clients import TopicInfo, describe, full_name
from millrace.infra.kafka.control import Control
from millrace.infra.kafka.offsets import committed
from millrace.infra.settings import Settings
from millrace.schemas.errors import Unavailable, UsageError
from millrace.schemas.evidence import Moments
from millrace.schemas.experiment import Plan, State
from millrace.schemas.moments import FEATURES, Arm
from millrace.schemas.policy_state import Gram
from millrace.schemas.topics import ASSIGNMENTS, EXPERIMENTS, OUTCOMES_BY_UNIT, Topic
from millrace.streams.experiment.digest import digest
from millrace.streams.experiment.folded import folded
from millrace.streams.experiment.plans import Known
from millrace.streams.plan_check import can_assign
from millrace.workers.sealed import Sealed, read

ARCHIVER = "archiver"
WAIT_SECONDS = 30.0
POLL_SECONDS = 0.2
ANSWER_SECONDS = 600.0
GREETING_SECONDS = 10.0
"""A statement about many records may take long; that there is somebody who answers does not."""


class Unequal(Struct, frozen=True):
    """One number that differs. ``metric`` is empty for a counter of an arm."""

    partition: int
    metric: str
    arm: str
    number: str
    stream: int
    batch: int


class Verified(Struct, frozen=True):
    """What was compared: partitions with the offsets of each topic, how many integers, and those that differ."""

    experiment: str
    offsets: dict[int, dict[str, int]]
    metrics: list[str]
    variants: list[str]
    compared: int
    unequal: list[Unequal]
    statements: dict[str, str]
    """Metric to the statement that an analyst can run; that of the arms under an empty name."""
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether stream and batch say the same."""
        return not self.unequal


def verify_experiment(
    settings: Settings, name: str, wait_seconds: float = WAIT_SECONDS, say: Callable[[str], None] = lambda text: None
) -> Verified:
    """Compare the newest sealed moments with what ClickHouse answers.

    Raises UsageError for an experiment that there is not, Unavailable where nothing is sealed yet, the archive lacks records below the
    named offsets, or a place does not answer.
    """
    began = time.monotonic()
    versions = versions_of(settings, name)
    sealed = read(settings, name)
    if not sealed:
        raise Unavailable(f"experiment {name} has no moments yet: they come from the role experimenter once the experiment has assigned")
    infos = topics(settings)
    say(f"waiting for the archive to have what {len(sealed)} partitions name")
    wait_for_archive(settings, infos, {number: one.seal.offsets for number, one in sealed.items()}, wait_seconds)
    question = as_of(versions, infos, {number: one.seal.offsets for number, one in sealed.items()})
    client = Client(settings.clickhouse, ANSWER_SECONDS)
    client.use_database()
    try:
        compared, unequal = _compare(client, question, versions, sealed)
    finally:
        client.close()
    return Verified(
        experiment=name,
        offsets={number: one.seal.offsets for number, one in sealed.items()},
        metrics=[metric.name for metric in question.folded],
        variants=[variant.name for variant in versions[-1].variants],
        compared=compared,
        unequal=unequal,
        statements=statements(question, versions),
        seconds=time.monotonic() - began,
    )


def versions_of(settings: Settings, name: str) -> list[Plan]:
    """The versions of an experiment's plan that workers go by, oldest first. Raises UsageError where there is none."""
    plans: Control[Plan] = Control(settings, EXPERIMENTS)
    found = plans.of(name)
    if not found:
        known = ", ".join(sorted(plan.name for plan in plans.versions)) or "none yet"
        raise UsageError(f"no experiment is called {name!r}; there are: {known}")
    usable = [plan for plan in found if can_assign(plan)]
    if not usable:
        raise UsageError(f"no worker goes by any version of experiment {name}: mend its file, and `millrace experiments update FILE.toml`")
    return usable


def topics(settings: Settings) -> dict[Topic, TopicInfo]:
    """The two topics that moments come from. Raises UsageError for one that does not exist."""
    names = {full_name(settings, topic): topic for topic in (ASSIGNMENTS, OUTCOMES_BY_UNIT)}
    infos = describe(settings, list(names))
    if absent := sorted(set(names) - set(infos)):
        raise UsageError(f"topics do not exist: {', '.join(absent)}. Run `millrace provision`.")
    return {topic: infos[name] for name, topic in names.items()}


def as_of(versions: Sequence[Plan], infos: Mapping[Topic, TopicInfo], offsets: Mapping[int, Mapping[str, int]]) -> AsOf:
    """The question: what decides sums is what the first version that ran says; when it was written, the first that says the same."""
    plan = next((one for one in versions if one.state is State.RUNNING), versions[-1])
    written: dict[str, int] = {}
    for version in versions:
        for metric in folded(version):
            written.setdefault(digest(version, metric), time_us(version.time))
    known = Known()
    for version in versions:
        known.add(version)
    ends = [Ends(number, named.get(ASSIGNMENTS.name, 0), named.get(OUTCOMES_BY_UNIT.name, 0)) for number, named in sorted(offsets.items())]
    return AsOf(
        plan,
        infos[ASSIGNMENTS].topic_id,
        infos[OUTCOMES_BY_UNIT].topic_id,
        tuple(ends),
        {metric.name: written[digest(plan, metric)] for metric in folded(plan)},
        known.closes_ms(),
    )


def statements(question: AsOf, versions: Sequence[Plan]) -> dict[str, str]:
    """The statement of each metric, that of a reward's sums over features, and that of the arms under an empty name."""
    found = {metric.name: moments_sql(question, metric) for metric in question.folded}
    learnt = {m.name + FEATURES: grams_sql(question, m) for m in question.folded if question.plan.learnt_over(m.name)}
    return found | learnt | {"": arms_sql(question, versions)}


def wait_for_archive(
    settings: Settings, infos: Mapping[Topic, TopicInfo], offsets: Mapping[int, Mapping[str, int]], wait_seconds: float
) -> None:
    """Wait until ClickHouse has all records below these offsets. Raises Unavailable naming what it lacks, or where it does not answer."""
    Client(settings.clickhouse, GREETING_SECONDS).close()
    deadline = time.monotonic() + wait_seconds
    while lacking := _lacking(settings, infos, offsets):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"ClickHouse lacks, after {wait_seconds:g} s, {'; '.join(lacking)}. Does the role archiver run? See `millrace status`, or"
                " use --wait"
            )
        time.sleep(POLL_SECONDS)


def _lacking(settings: Settings, infos: Mapping[Topic, TopicInfo], offsets: Mapping[int, Mapping[str, int]]) -> list[str]:
    reached = committed(settings, ARCHIVER, {full_name(settings, topic): info for topic, info in infos.items()})
    return [
        f"{topic.name}/{number} offsets {max(reached[full_name(settings, topic), number], 0)} to {named[topic.name] - 1}"
        for number, named in sorted(offsets.items())
        for topic in infos
        if reached[full_name(settings, topic), number] < named.get(topic.name, 0)
    ]


def _compare(client: Client, question: AsOf, versions: Sequence[Plan], sealed: Mapping[int, Sealed]) -> tuple[int, list[Unequal]]:
    """One partition at a time: each statement then needs memory for the records of one."""
    compared = 0
    unequal: list[Unequal] = []
    for end in question.ends:
        one = AsOf(question.plan, question.assignments_id, question.outcomes_id, (end,), question.written_us, question.closes_ms)
        told = sealed[end.partition]
        _check_definitions(versions, told)
        for metric in question.folded:
            batch = {arm: _numbers(found) for (_, arm), found in moments(client, one, metric).items()}
            stream = {arm: _numbers(found) for arm, found in told.moments(metric.name).items()}
            compared += _differences(end.partition, metric.name, stream, batch, unequal)
            learnt = {variant + FEATURES: _products(found) for (_, variant), found in grams(client, one, metric).items()}
            told_of = {variant + FEATURES: _products(found) for variant, found in told.grams(metric.name).items()}
            compared += _differences(end.partition, metric.name, told_of, learnt, unequal)
        seen = {arm: _counters(found) for (_, arm), found in arms(client, one, versions).items()}
        compared += _differences(end.partition, "", {arm: _counters(found) for arm, found in told.seal.arms.items()}, seen, unequal)
    return compared, unequal


def _check_definitions(versions: Sequence[Plan], told: Sealed) -> None:
    """Raise Unavailable where a metric's moments are of another definition than any version of the plan: the two would not compare."""
    for name, record in told.metrics.items():
        known = {digest(plan, metric) for plan in versions for metric in folded(plan) if metric.name == name}
        if record.digest not in known:
            raise Unavailable(
                f"metric {name} on partition {record.partition} was folded by another definition than the plan's: is the role experimenter"
                " of this version of millrace? Its newest moments say which definition they are of"
            )


Numbers = dict[str, int]


def _differences(partition: int, metric: str, stream: Mapping[str, Numbers], batch: Mapping[str, Numbers], unequal: list[Unequal]) -> int:
    """Append what differs, and say how many integers were compared. What one of them does not mention is 0 there."""
    compared = 0
    for arm in sorted(stream.keys() | batch.keys()):
        ours, theirs = stream.get(arm, {}), batch.get(arm, {})
        for number in dict.fromkeys([*ours, *theirs]):
            compared += 1
            if ours.get(number, 0) != theirs.get(number, 0):
                unequal.append(Unequal(partition, metric, arm, number, ours.get(number, 0), theirs.get(number, 0)))
    return compared


def _numbers(found: Moments) -> Numbers:
    return {name: getattr(found, name) for name in Moments.__struct_fields__}


def _products(found: Gram) -> Numbers:
    """The sums over features, each by its place."""
    places = {f"products[{i}]": number for i, number in enumerate(found.products)}
    return {"n": found.n, **places, **{f"rewards[{i}]": number for i, number in enumerate(found.rewards)}}


def _counters(found: Arm) -> Numbers:
    return {name: getattr(found, name) for name in Arm.__struct_fields__ if name != "segments"} | found.segments

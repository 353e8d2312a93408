"""The experiment fold at its edges, one question each; that it is what its definition says as a whole is asked in tests/property."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from millrace.schemas.errors import NotNow, Stop
from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Allocation, Analysis, Plan, Policy, State, Unit, Variant
from millrace.schemas.metric import Aggregation, Metric, Role, Source
from millrace.schemas.moments import FEATURES, Arm, PartitionMoments, from_gram_sums, from_sums, over_features
from millrace.schemas.policy_state import Gram
from millrace.schemas.record import Emit
from millrace.schemas.topics import ASSIGNMENTS, OUTCOMES_BY_UNIT
from millrace.streams.experiment import sweep
from millrace.streams.experiment.digest import digest, digest_of_all
from millrace.streams.experiment.fold import Fold
from millrace.streams.experiment.subject import UNITS, UnitState
from millrace.streams.experiment.tally import moments_of
from tests.driver import START_MS, Driver, Log
from tests.folding import assigned, outcome
from tests.models import control

T0 = START_MS
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
PAID = Metric(name="paid", outcome="paid", role=Role.PRIMARY, resolution=0.01, window_seconds=3_600.0)


def plan(*metrics: Metric, **fields: Any) -> Plan:
    given: dict[str, Any] = {"variants": (Variant(name="a"), Variant(name="b")), "state": State.RUNNING, "version": 1} | fields
    return Plan(name="e", time=from_ms(T0 - 10 * DAY), salt="s", metrics=metrics or (PAID,), **given)


class Told:
    """One partition's fold of some plans, fed event by event at chosen append times."""

    def __init__(self, *plans: Plan) -> None:
        self.plans = plans or (plan(),)
        self.log = Log(partitions=1)
        self.driver = Driver(self.log, self.fold(), (ASSIGNMENTS, OUTCOMES_BY_UNIT))

    def fold(self) -> Fold:
        fold = Fold()
        for one in self.plans:
            assert fold.observe(control(one))
        return fold

    def add(self, event: Any, at_ms: int = T0) -> Told:
        self.log.now_ms = at_ms
        topic = ASSIGNMENTS if hasattr(event, "experiment") else OUTCOMES_BY_UNIT
        self.log.append(topic.name, event.unit_id, event)
        return self

    def met(self, unit: str = "u", variant: str = "a", at_ms: int = T0, **fields: Any) -> Told:
        return self.add(assigned("e", unit, fields.pop("time_ms", at_ms), variant, **fields), at_ms)

    def events(self) -> list[PartitionMoments]:
        """What is emitted from here on."""
        seen = len(self.driver.emitted[0])
        self.driver.clock_ms += 1_000
        self.driver.drain()
        self.driver.clock_ms += 1_000
        self.driver.poll()
        return [fact.event for fact in self.driver.emitted[0][seen:] if isinstance(fact, Emit)]

    def moments(self, metric: str = "paid") -> dict[str, Moments]:
        last = [event for event in self.events() if event.metric == metric][-1]
        return {label: from_sums(sums) for label, sums in last.moments.items()}

    def sums(self) -> dict[str, Moments | Gram]:
        """What the store holds of the metric: moments, and sums over features."""
        self.driver.drain()
        stored = moments_of("e", "paid", self.driver.stores[0])
        return {label: from_sums(told) if over_features(label) is None else from_gram_sums(told) for label, told in stored.items()}

    def arms(self) -> dict[str, Arm]:
        return [event for event in self.events() if not event.metric][-1].arms

    @property
    def image(self) -> dict[bytes, bytes]:
        return self.driver.stores[0].image()


@pytest.mark.parametrize(("before_ms", "counts"), [(600_000, True), (600_001, False)])
def test_an_outcome_appended_shortly_before_the_exposure_counts(before_ms: int, counts: bool) -> None:
    told = Told().add(outcome("o", "u", 1.0, T0), T0 - before_ms).met()
    assert told.moments() == {"a": Moments.of(100 if counts else 0)}


@pytest.mark.parametrize(("time_ms", "counts"), [(T0 - 1, False), (T0, True), (T0 + HOUR - 1, True), (T0 + HOUR, False)])
def test_the_window_begins_at_the_exposure_and_ends_before_its_end(time_ms: int, counts: bool) -> None:
    told = Told().met().add(outcome("o", "u", 1.0, time_ms))
    assert told.moments() == {"a": Moments.of(100 if counts else 0)}


@pytest.mark.parametrize(("behind_ms", "late"), [(MINUTE, 0), (MINUTE + 1, 1)])
def test_late_is_more_than_the_lateness_behind_the_newest_before_it(behind_ms: int, late: int) -> None:
    told = Told(plan(analysis=Analysis(lateness_seconds=60.0))).met()
    told.add(outcome("other", "elsewhere", 0.0, T0 + behind_ms)).add(outcome("o", "u", 1.0, T0))
    arm = told.arms()["a"]
    assert (arm.late, arm.outcomes) == (late, 1 - late)


def test_the_first_outcome_of_a_partition_is_not_late() -> None:
    told = Told(plan(analysis=Analysis(lateness_seconds=0.0))).met().add(outcome("o", "u", 1.0, T0))
    assert told.arms()["a"].outcomes == 1


@pytest.mark.parametrize(("weeks", "again"), [(1, 1), (2, 0)])
def test_an_id_is_remembered_for_its_generation_and_the_next(weeks: int, again: int) -> None:
    told = Told(plan(replace(PAID, window_seconds=30 * 86_400.0))).met()
    told.add(outcome("o", "u", 1.0, T0)).add(outcome("o", "u", 1.0, T0), T0 + weeks * 7 * DAY)
    assert told.arms()["a"].duplicates == again


@pytest.mark.parametrize("aggregation", [Aggregation.FIRST, Aggregation.LAST])
def test_of_equal_times_the_offset_decides(aggregation: Aggregation) -> None:
    told = Told(plan(replace(PAID, aggregation=aggregation))).met()
    for number in (2, 1, 3):
        told.add(outcome(f"o{number}", "u", float(number), T0))
    assert told.moments() == {"a": Moments.of({Aggregation.FIRST: 200, Aggregation.LAST: 300}[aggregation])}


def test_a_covariate_is_of_the_whole_days_before_that_were_surely_known() -> None:
    day = T0 // DAY * DAY
    metric = replace(PAID, covariate_days=3)
    told = Told(replace(plan(metric), time=from_ms(day - 2 * DAY - HOUR) + timedelta(microseconds=1)))
    for number, time_ms in enumerate((day - 3 * DAY, day - 2 * DAY, day - DAY - 1, day - DAY, day - 1, day, T0)):
        told.add(outcome(f"o{number}", "u", 10.0**number, time_ms), time_ms)
    told.met()
    told.add(outcome("after", "u", 0.5, day - 1), T0)
    # two days are known: that of the plan's hour begins too early, and what is told after the exposure is within the lateness or not
    assert told.moments() == {"a": Moments.of(10**8, 0, (10**3 + 10**4) * 100)}


@pytest.mark.parametrize("at_ms", [T0 - 1, T0 + 1], ids=["before", "after"])
@pytest.mark.parametrize(("behind_ms", "counts"), [(MINUTE, True), (MINUTE + 1, False)])
def test_a_late_outcome_is_in_no_covariate(behind_ms: int, counts: bool, at_ms: int) -> None:
    day = T0 // DAY * DAY
    told = Told(plan(replace(PAID, covariate_days=2), analysis=Analysis(lateness_seconds=60.0)))
    told.met().add(outcome("other", "elsewhere", 0.0, day - DAY + behind_ms), at_ms).add(outcome("o", "u", 1.0, day - DAY), at_ms)
    assert told.moments() == {"a": Moments.of(0, 0, 100 if counts else 0)}


def test_a_covariate_is_known_from_the_first_draft_that_has_it_as_it_is() -> None:
    day = T0 // DAY * DAY
    metric = replace(PAID, covariate_days=5)
    without = replace(plan(replace(metric, cap=9.0)), state=State.DRAFT, time=from_ms(day - 5 * DAY))
    draft = replace(without, version=2, metrics=(metric,), time=from_ms(day - 3 * DAY))
    told = Told(without, draft, replace(draft, version=3, state=State.RUNNING, time=from_ms(day - HOUR)))
    for number in (5, 4, 3, 2, 1):
        told.add(outcome(f"o{number}", "u", 10.0**number, day - number * DAY), day - number * DAY)
    told.met()
    assert told.moments() == {"a": Moments.of(0, 0, (10 + 100) * 100)}


def test_what_is_told_of_the_days_before_after_the_exposure_counts_too() -> None:
    day = T0 // DAY * DAY
    told = Told(plan(replace(PAID, covariate_days=2), analysis=Analysis(lateness_seconds=2 * 86_400.0)))
    told.add(outcome("o", "u", 1.0, day - 1), day - 1).met().add(outcome("after", "u", 0.5, day - 2 * DAY), T0)
    assert told.moments() == {"a": Moments.of(0, 0, 150)}


def test_a_unit_that_met_two_variants_leaves_and_is_still_counted() -> None:
    told = Told().met(segments={"c": "x"}).add(outcome("o", "u", 1.0, T0)).met("v", segments={"c": "x"})
    assert told.moments() == {"a": Moments.of(100) + Moments.of(0), "a|c=x": Moments.of(100) + Moments.of(0)}
    told.met(variant="b", at_ms=T0 + 1).add(outcome("o2", "u", 1.0, T0), T0 + 1)
    assert told.moments() == {"a": Moments.of(0), "a|c=x": Moments.of(0)}
    told.met(variant="b", at_ms=T0 + 2)
    arm = told.arms()["a"]
    assert (arm.exposed, arm.multiple, arm.units, arm.outcomes, arm.segments) == (2, 1, 1, 2, {"c=x": 1})


def test_only_a_first_assignment_by_hand_leaves_a_unit_out() -> None:
    told = Told().met(override=True).met(variant="b").met("v").met("v", "b", override=True)
    arms = told.arms()
    assert (arms["a"].overridden, arms["a"].assigned, arms["a"].exposed, arms["a"].assignments) == (1, 1, 1, 2)
    assert (arms["b"].assigned, arms["b"].exposed, arms["b"].assignments) == (0, 0, 2)


def test_a_unit_is_assigned_as_first_told_and_exposed_as_first_met() -> None:
    arms = Told().met(exposed=False).met(variant="b", at_ms=T0 + 1).arms()
    assert (arms["a"].assigned, arms["a"].exposed, arms["b"].assigned, arms["b"].exposed, arms["b"].multiple) == (1, 0, 0, 1, 0)


def test_variants_are_derived_again() -> None:
    told = Told()
    for number in range(40):
        told.met(f"u{number}")
    by_plan = told.arms()["a"].underived
    assert 5 < by_plan < 35
    told.met("sure", policy_version=1, propensities={"a": 1.0}).met("never", policy_version=1, propensities={"b": 1.0})
    assert told.arms()["a"].underived == by_plan + 1


def test_a_request_counts_the_outcomes_that_answer_it() -> None:
    told = Told(plan(unit=Unit.REQUEST))
    told.add(outcome("before", "u", 1.0, T0, request_id="r-u")).met()
    told.add(outcome("after", "u", 0.5, T0, request_id="r-u")).add(outcome("none", "u", 4.0, T0))
    told.add(outcome("other", "u", 8.0, T0, request_id="r")).add(outcome("foreign", "v", 8.0, T0, request_id="r-u"))
    assert told.moments() == {"a": Moments.of(150)}


LEARNS = Allocation(policy=Policy.LIN_TS, metric="paid", features={"hour": (0.0, 24.0), "basket": (0.0, 500.0)})


def learns(**fields: Any) -> Plan:
    return plan(**({"unit": Unit.REQUEST, "allocation": LEARNS} | fields))


def test_a_reward_is_summed_over_the_features_of_its_request() -> None:
    told = Told(learns()).met(features={"hour": 18.0, "basket": 1_000.0})
    x = [1_000_000, 500_000]
    assert told.sums() == {"a": Moments.of(0), f"a{FEATURES}": Gram.of(x, 0)}
    told.add(outcome("o", "u", 1.0, T0, request_id="r-u")).add(outcome("o", "u", 1.0, T0, request_id="r-u"))
    told.add(outcome("p", "u", 0.5, T0, request_id="r-u"))
    assert told.sums() == {"a": Moments.of(150), f"a{FEATURES}": Gram.of(x, 150)}
    told.met("v", "b", features={"hour": 0.0, "basket": 0.0}).met("w", features={"hour": 12.0, "basket": 250.0})
    assert told.sums() == {
        "a": Moments.of(150) + Moments.of(0),
        f"a{FEATURES}": Gram.of(x, 150) + Gram.of([0, 0], 0),
        "b": Moments.of(0),
        f"b{FEATURES}": Gram.of([-1_000_000] * 2, 0),
    }


def test_rewards_that_cancel_in_the_moments_change_the_sums_over_features() -> None:
    """In one poll one request gains what another loses: the moments of the arm are as they were."""
    last = plan(replace(PAID, aggregation=Aggregation.LAST), unit=Unit.REQUEST, allocation=LEARNS)
    told = Told(last).met(features={"hour": 24.0, "basket": 0.0}).met("v", features={"hour": 0.0, "basket": 0.0})
    told.add(outcome("o", "u", 1.0, T0, request_id="r-u"))
    high, low = [-1_000_000, 1_000_000], [-1_000_000, -1_000_000]
    both = Moments.of(100) + Moments.of(0)
    assert told.sums() == {"a": both, f"a{FEATURES}": Gram.of(high, 100) + Gram.of(low, 0)}
    told.add(outcome("o2", "u", 0.0, T0 + 1, request_id="r-u")).add(outcome("o3", "v", 1.0, T0, request_id="r-v"))
    assert told.sums() == {"a": both, f"a{FEATURES}": Gram.of(high, 0) + Gram.of(low, 100)}


def test_a_request_without_its_features_counts_and_is_not_learnt_from() -> None:
    told = Told(learns()).met().met("v", features={"hour": 1.0}).met("w", "b", features={"hour": 12.0, "basket": 250.0})
    told.add(outcome("o", "u", 1.0, T0, request_id="r-u"))
    assert told.sums() == {"a": Moments.of(100) + Moments.of(0), "b": Moments.of(0), f"b{FEATURES}": Gram.of([0, 0], 0)}
    told.met("w", "a", at_ms=T0 + 1, features={"hour": 12.0, "basket": 250.0})
    assert told.sums() == {"a": Moments.of(100) + Moments.of(0)}


def test_sums_over_features_are_of_the_reward_and_of_a_contextual_policy_alone() -> None:
    features = {"hour": 1.0, "basket": 2.0}
    other = replace(PAID, name="other")
    told = Told(plan(PAID, other, unit=Unit.REQUEST, allocation=LEARNS)).met(features=features)
    assert told.moments("other") == {"a": Moments.of(0)}
    thompson = replace(LEARNS, policy=Policy.THOMPSON, features={})
    assert Told(learns(allocation=thompson)).met(features=features).sums() == {"a": Moments.of(0)}
    wider = replace(LEARNS, features=LEARNS.features | {"hour": (0.0, 48.0)})
    assert len({digest(learns(allocation=one), PAID) for one in (None, thompson, LEARNS, wider)}) == 3
    turned = replace(LEARNS, features=dict(reversed(LEARNS.features.items())))
    assert digest(learns(allocation=turned), PAID) == digest(learns(), PAID)


def test_sums_outgrow_64_bits() -> None:
    source = Source(outcome="paid", resolution=1e-9)
    told = Told(plan(replace(PAID, kind=Kind.RATIO, resolution=1e-9, denominator=source))).met()
    for number in range(3):
        told.add(outcome(f"o{number}", "u", -1e15, T0))
    told.moments()
    told.add(outcome("last", "u", -1e15, T0))
    assert told.moments() == {"a": Moments.of(-4 * round(1e15 / 1e-9), -4 * round(1e15 / 1e-9))}


def test_an_unknown_plan_is_waited_for() -> None:
    for event in (assigned("e", "u", T0, plan_version=2), assigned("other", "u", T0)):
        told = Told().add(event)
        with pytest.raises(NotNow, match=r"not known yet") as raised:
            told.driver.poll()
        assert raised.value.retry_seconds == 0.2
        assert told.image == {}


def test_an_outcome_of_nobody_known_is_kept_for_a_plan_that_is_learnt_late() -> None:
    told = Told().add(outcome("o", "u", 1.0, T0))
    assert told.events() == []
    told.plans = (told.plans[0], replace(plan(), name="late"))
    told.driver.restart(told.fold())
    told.add(assigned("late", "u", T0))
    assert told.moments() == {"a": Moments.of(100)}


def test_what_changed_is_told_once_a_second_and_sealed() -> None:
    told = Told(plan(PAID, replace(PAID, name="other", outcome="other")))
    told.met()
    told.driver.poll()
    first = [fact.event for fact in told.driver.emitted[0] if isinstance(fact, Emit)]
    assert [event.metric for event in first] == ["paid", "other", ""]
    assert [event.offsets for event in first] == [{"assignments": 1, "outcomes-by-unit": 0}] * 3
    assert (first[0].digest, first[-1].digest) == (digest(told.plans[0], PAID), digest_of_all(told.plans[0]))
    told.add(outcome("o", "u", 1.0, T0))
    told.driver.clock_ms += 999
    told.driver.poll()
    assert len(told.driver.emitted[0]) == 3
    told.driver.clock_ms += 1
    told.driver.poll()
    facts = [fact for fact in told.driver.emitted[0][3:] if isinstance(fact, Emit)]
    assert [(fact.key, fact.partition_by) for fact in facts] == [("e/paid/0", "e"), ("e//0", "e")]
    assert [fact.event.offsets["outcomes-by-unit"] for fact in facts] == [1, 1]
    told.add(outcome("o", "nobody", 1.0, T0))
    assert told.events() == []


def test_an_experiment_without_metrics_counts_its_arms() -> None:
    told = Told(replace(plan(), metrics=())).met()
    assert [event.metric for event in told.events()] == [""]


def test_the_digest_is_of_what_decides_the_sums() -> None:
    whole = plan()
    same = replace(PAID, role=Role.GUARDRAIL, limit=0.1, minimal_effect=0.2)
    assert digest(whole, same) == digest(whole, PAID)
    others = [replace(PAID, cap=1.0), replace(PAID, window_seconds=1.0), replace(PAID, resolution=0.1)]
    changed = [digest(whole, other) for other in others] + [digest(replace(whole, segments={"c": ("x",)}), PAID)]
    assert len({digest(whole, PAID), *changed}) == 5


def test_a_busy_unit_does_not_grow_and_counts_the_same() -> None:
    """Of thousands of outcomes within minutes: ids, recent outcomes and different values move into keys of their own."""
    different = replace(PAID, name="different", aggregation=Aggregation.UNIQUE)
    told = Told(plan(PAID, different))
    for number in range(1_000):
        told.add(outcome(f"o{number % 900}", "u", float(number % 700), T0))
    told.driver.drain(50)
    assert max(len(value) for key, value in told.image.items() if key.startswith(b"u")) < 30_000
    told.met(at_ms=T0 + MINUTE, time_ms=T0)
    for number in range(900, 1_200):
        told.add(outcome(f"o{number}", "u", float(number), T0), T0 + MINUTE)
    told.driver.drain(50)
    assert told.moments("different") == {"a": Moments.of(700 + 300)}
    assert {key[:1] for key in told.image} == {b"u", b"g", b"i", b"q", b"m", b"a", b"h"}


@pytest.fixture
def few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer slices, each swept with more subjects."""
    monkeypatch.setattr(sweep, "ROUNDS", 16)


def swept(told: Told, at_ms: int) -> None:
    """Let the watermark reach a time, and each slice of the subjects have its turn."""
    told.log.now_ms = at_ms
    for _ in range(sweep.ROUNDS):
        told.driver.clock_ms += 1_000
        told.driver.poll()


@pytest.mark.usefixtures("few_rounds")
def test_what_can_change_nothing_any_more_is_let_go_of() -> None:
    different = replace(PAID, name="different", aggregation=Aggregation.UNIQUE)
    running = plan(PAID, different, replace(PAID, name="before", covariate_days=3))
    told = Told(running, replace(running, version=2, state=State.STOPPED, time=from_ms(T0)), replace(plan(unit=Unit.REQUEST), name="r"))
    told.add(assigned("r", "u", T0)).met()
    for number in range(400):
        told.add(outcome(f"o{number}", "u", float(number), T0, request_id="r-u"))
    before = told.events()
    kept = {key: value for key, value in told.image.items() if key[:1] in b"ma"}
    swept(told, T0 + MINUTE)
    assert {key[:1] for key in told.image} == {b"u", b"r", b"g", b"i", b"q", b"m", b"a", b"h"}
    swept(told, T0 + 15 * DAY)
    assert {key[:1] for key in told.image} == {b"r", b"m", b"a", b"h"}
    assert {key: value for key, value in told.image.items() if key[:1] in b"ma"} == kept
    assert before
    assert told.events() == []


@pytest.mark.usefixtures("few_rounds")
def test_a_closed_experiment_counts_no_more_whether_it_was_swept_or_not() -> None:
    stopped = replace(plan(), version=2, state=State.STOPPED, time=from_ms(T0))
    for sweeps in (True, False):
        told = Told(plan(), stopped).met()
        closes_ms = T0 + HOUR + HOUR + DAY
        told.add(outcome("o", "u", 1.0, T0), closes_ms - 1)
        assert told.moments() == {"a": Moments.of(100)}
        if sweeps:
            swept(told, closes_ms + DAY)
        told.add(outcome("o2", "u", 1.0, T0), closes_ms + 2 * DAY).met(variant="b", at_ms=closes_ms + 2 * DAY)
        assert told.events() == []


def test_state_of_another_version_is_refused() -> None:
    with pytest.raises(Stop, match="another version of millrace"):
        UNITS.decode(b"\x02" + UNITS.encode(UnitState())[1:])

"""What the experiment fold remembers, and for how long: ids, recent outcomes and closings at their edges, where clocks step back too."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from millrace.schemas.event import from_ms
from millrace.schemas.evidence import Kind, Moments
from millrace.schemas.experiment import Analysis, State, Unit
from millrace.schemas.metric import Aggregation
from millrace.schemas.moments import from_sums
from millrace.streams.experiment import sweep
from millrace.streams.experiment.head import HEADS, Head
from millrace.streams.experiment.plans import Plans
from millrace.streams.experiment.recent import INLINE
from millrace.streams.experiment.repeated import ID_BYTES, INLINE_BYTES, repeated
from millrace.streams.experiment.subject import SLICES, UNIT, UNITS, Exposure, UnitState, key
from millrace.streams.experiment.sweep import Sweep
from tests.driver import MemoryStore
from tests.folding import assigned, outcome
from tests.models import control
from tests.unit.test_fold import DAY, HOUR, MINUTE, PAID, T0, Told, plan

GRACE = 10 * MINUTE
WEEK = 7 * DAY
LONG = replace(PAID, window_seconds=60 * 86_400.0)
STOPPED = replace(plan(), version=2, state=State.STOPPED, time=from_ms(T0))
CLOSES = T0 + HOUR + HOUR + DAY


@pytest.mark.parametrize(("before_ms", "counts"), [(GRACE, 100), (GRACE + 1, 0)])
def test_grace_holds_for_an_outcome_that_comes_after_its_exposure_with_an_older_append_time(before_ms: int, counts: int) -> None:
    told = Told().met().add(outcome("other", "v", 0.0, T0), T0 + 1).add(outcome("o", "u", 1.0, T0), T0 - before_ms)
    assert told.moments() == {"a": Moments.of(counts)}


def test_recent_outcomes_are_kept_a_little_longer_because_append_times_step_back() -> None:
    told = Told().add(outcome("o", "u", 1.0, T0), T0).add(outcome("o2", "u", 2.0, T0), T0 + GRACE + 59_000)
    told.met("v", at_ms=T0 + GRACE + MINUTE).met(at_ms=T0 + GRACE, time_ms=T0)
    assert told.moments() == {"a": Moments.of(300) + Moments.of(0)}


def test_of_very_many_recent_outcomes_those_within_grace_count() -> None:
    told = Told()
    for number in range(2 * INLINE):
        told.add(outcome(f"o{number}", "u", 1.0, T0), T0 - GRACE - (number < INLINE // 2))
    assert told.met().moments() == {"a": Moments.of((2 * INLINE - INLINE // 2) * 100)}


def test_recent_outcomes_are_forgotten_by_the_units_that_go_on() -> None:
    """Of one that is never quiet too, whose first recent outcome is never old."""
    told = Told().add(outcome("o", "u", 1.0, T0)).add(outcome("o2", "u", 1.0, T0), T0 + 2 * GRACE)
    for number in range(20 * INLINE):
        told.add(outcome(f"o{number}", "v", 1.0, T0), T0 + 2 * GRACE + number * 1_000)
    told.driver.drain()
    assert len(UNITS.decode(told.image[key(UNIT, "u")]).recent) == 1
    assert len([place for place in told.image if place.startswith(b"g")]) <= 4


@pytest.mark.parametrize("others", [0, 70], ids=["few", "many"])
@pytest.mark.parametrize(("weeks", "again"), [((0, 1), 1), ((0, 2), 0), ((0, 1, 2), 2), ((0, 0, 2), 1)])
def test_each_record_of_an_id_renews_it(weeks: tuple[int, ...], again: int, others: int) -> None:
    """Whether ids stand with their unit or, of many, in keys of their own."""
    told = Told(plan(LONG)).met()
    for number in range(others):
        told.add(outcome(f"before{number}", "u", 0.0, T0))
    for turn, week in enumerate(weeks):
        told.add(outcome("o", "u", 1.0, T0), T0 + week * WEEK)
        for number in range(others):
            told.add(outcome(f"after{turn}-{number}", "u", 0.0, T0), T0 + week * WEEK)
    assert told.arms()["a"].duplicates == again


def test_a_generation_never_falls() -> None:
    told = Told(plan(LONG)).met().add(outcome("o", "u", 1.0, T0))
    told.add(outcome("other", "v", 0.0, T0), T0 + 2 * WEEK).add(outcome("o", "u", 1.0, T0), T0 + WEEK)
    assert told.arms()["a"].duplicates == 0


def test_an_id_is_found_as_a_whole() -> None:
    unit, store = UnitState(ids=bytes(range(2 * ID_BYTES)), generation=1), MemoryStore()
    inside = bytes(range(ID_BYTES // 2, ID_BYTES // 2 + ID_BYTES))
    assert not repeated(unit, inside, 1, store)
    assert repeated(unit, inside, 1, store)


@pytest.mark.parametrize(("at_ms", "counts"), [(CLOSES - 1, 2), (CLOSES, 1)])
def test_an_assignment_counts_until_its_experiment_closes(at_ms: int, counts: int) -> None:
    told = Told(plan(), STOPPED).met().met("v", at_ms=at_ms)
    assert told.arms()["a"].assignments == counts


def test_a_later_version_of_an_end_moves_no_closing() -> None:
    concluded = replace(STOPPED, version=3, state=State.COMPLETED, time=from_ms(T0 + DAY))
    told = Told(plan(), STOPPED, concluded).met().met("v", at_ms=CLOSES)
    assert told.arms()["a"].assignments == 1


def test_when_a_closed_experiment_was_emitted_is_forgotten() -> None:
    told = Told(plan(), STOPPED, replace(plan(), name="other")).met().add(assigned("other", "u", T0))
    assert len(told.events()) == 4
    told.add(assigned("other", "u", T0), CLOSES - 1).events()
    assert set(HEADS.decode(told.image[b"h"]).emitted_ms) == {"e", "other"}
    told.add(assigned("other", "u", T0), CLOSES).events()
    assert set(HEADS.decode(told.image[b"h"]).emitted_ms) == {"other"}


def test_each_of_too_many_subjects_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more stand in a second's slices than one sweep looks at, and the first of them stay."""
    monkeypatch.setattr(sweep, "KEYS", 20)
    monkeypatch.setattr(sweep, "ROUNDS", SLICES // 4)
    keeps = UNITS.encode(UnitState(exposures=[Exposure("e")]))
    place = [UNIT + number.to_bytes(2, "big") for number in range(4)]
    store = MemoryStore(
        {place[at] + f"{n}".encode(): UNITS.encode(UnitState()) if at == 3 else keeps for at in range(4) for n in range(15)}
    )
    for turn in range(4):
        Sweep.at(Plans(), T0, store).run(turn * sweep.ROUNDS)
    store.commit()
    assert {stored[:3] for stored in store.image()} == set(place[:3])


def test_a_unit_of_which_only_ids_of_their_own_were_left_goes_with_them() -> None:
    """As many outcomes as move into keys at once: nothing else says when the last of them was."""
    told = Told()
    for number in range(INLINE_BYTES // ID_BYTES):
        told.add(outcome(f"o{number}", "u", 1.0, T0))
    told.driver.drain()
    store = told.driver.stores[0]
    slice_ = int.from_bytes(key(UNIT, "u")[1:3], "big") // (SLICES // sweep.ROUNDS)
    for at_ms in (T0 + HOUR, T0 + 3 * WEEK):
        Sweep.at(Plans(), at_ms, store).run(slice_)
        store.commit()
    assert {place[:1] for place in store.image()} == {b"h"}


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """One slice: a sweep looks at all subjects."""
    monkeypatch.setattr(sweep, "ROUNDS", 1)


def swept(told: Told, at_ms: int) -> Told:
    """A sweep of all subjects at this time."""
    told.driver.drain()
    store, plans = told.driver.stores[0], Plans()
    for one in told.plans:
        plans.observe(one)
    Sweep.at(plans, at_ms, store).run(0)
    store.commit()
    return told


@pytest.mark.usefixtures("whole")
def test_a_sweep_just_before_the_closing_leaves_what_still_counts() -> None:
    told = swept(Told(plan(), STOPPED).met(), CLOSES - 1).add(outcome("o", "u", 1.0, T0), CLOSES - 1)
    assert told.moments() == {"a": Moments.of(100)}


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("others", [0, 70, INLINE_BYTES // ID_BYTES - 1], ids=["few", "many", "all in keys of their own"])
def test_a_sweep_leaves_ids_of_this_generation_and_the_one_before(others: int) -> None:
    told = Told(plan(LONG)).add(outcome("o", "u", 1.0, T0))
    for number in range(others):
        told.add(outcome(f"o{number}", "u", 0.0, T0))
    swept(told, T0 + WEEK).met(at_ms=T0 + WEEK, time_ms=T0).add(outcome("o", "u", 1.0, T0), T0 + WEEK)
    assert told.arms()["a"].duplicates == 1


@pytest.mark.usefixtures("whole")
def test_a_sweep_leaves_outcomes_within_grace() -> None:
    told = swept(Told().add(outcome("o", "u", 1.0, T0)), T0 + GRACE).met(at_ms=T0 + GRACE, time_ms=T0)
    assert told.moments() == {"a": Moments.of(100)}


@pytest.mark.usefixtures("whole")
def test_a_sweep_leaves_the_days_before_from_the_first_that_counts() -> None:
    """After the unit's ids were forgotten and nothing else is left of it."""
    day = T0 // DAY * DAY
    told = Told(replace(plan(replace(PAID, covariate_days=30)), time=from_ms(day - HOUR))).add(outcome("o", "u", 1.0, day), day)
    swept(told, T0 + 3 * WEEK).met(at_ms=T0 + 3 * WEEK)
    assert told.moments() == {"a": Moments.of(0, 0, 100)}


@pytest.mark.usefixtures("whole")
def test_very_many_values_of_a_closed_experiment_go_in_several_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "KEYS", 150)
    different = replace(PAID, aggregation=Aggregation.UNIQUE)
    told = Told(plan(different), replace(STOPPED, metrics=(different,))).met()
    for number in range(400):
        told.add(outcome(f"o{number}", "u", float(number), T0))
    for _ in range(3):
        swept(told, CLOSES)
    assert not [place for place in told.image if place.startswith(b"q")]


def test_an_experiment_closes_by_its_longest_window() -> None:
    metrics = (PAID, replace(PAID, name="longer", window_seconds=7_200.0))
    told = Told(plan(*metrics), replace(STOPPED, metrics=metrics)).met().met("v", at_ms=CLOSES + HOUR - 1).met("w", at_ms=CLOSES + HOUR)
    assert told.arms()["a"].assignments == 2


def test_metrics_that_count_days_otherwise_have_days_of_their_own() -> None:
    """By resolution and lateness; where they agree, from the first day that any of them knows."""
    day = T0 // DAY * DAY
    before = replace(PAID, covariate_days=3, resolution=1.0)
    early = plan(before, replace(before, name="fine", resolution=0.5))
    strict = replace(early, name="strict", analysis=Analysis(lateness_seconds=60.0))
    told = Told(early, strict, replace(early, name="new", time=from_ms(T0)))
    told.add(outcome("o", "u", 3.0, day - DAY), day - DAY).add(outcome("late", "u", 1.0, day - DAY - 2 * MINUTE), day - DAY)
    for name in ("e", "strict", "new"):
        told.add(assigned(name, "u", T0))
    found = {(event.experiment, event.metric): from_sums(event.moments["a"]) for event in told.events() if event.metric}
    expected = {("e", "paid"): 4, ("e", "fine"): 8, ("strict", "paid"): 3, ("strict", "fine"): 6, ("new", "paid"): 0, ("new", "fine"): 0}
    assert found == {place: Moments.of(0, 0, x) for place, x in expected.items()}


@pytest.mark.parametrize(("kind", "aggregation", "x"), [(Kind.PROPORTION, Aggregation.SUM, 1), (Kind.MEAN, Aggregation.MAX, 100)])
def test_a_day_does_not_forget_its_first_outcomes(kind: Kind, aggregation: Aggregation, x: int) -> None:
    told = Told(plan(replace(PAID, kind=kind, aggregation=aggregation, covariate_days=3)))
    told.add(outcome("o", "u", 1.0, T0 - DAY), T0 - DAY).add(outcome("o2", "u", 0.0, T0 - DAY), T0 - DAY).met()
    assert told.moments() == {"a": Moments.of(0, 0, x)}


def test_a_cap_of_a_count_is_a_number_of_outcomes() -> None:
    told = Told(plan(replace(PAID, aggregation=Aggregation.COUNT, resolution=1e-6, cap=2.0))).met()
    for number in range(3):
        told.add(outcome(f"o{number}", "u", 1.0, T0))
    assert told.moments() == {"a": Moments.of(2)}


def test_requests_are_analysed_beside_units() -> None:
    told = Told(plan(unit=Unit.REQUEST), replace(plan(), name="units")).met().add(outcome("o", "u", 1.0, T0, request_id="r-u"))
    assert told.moments() == {"a": Moments.of(100)}


def test_days_are_kept_from_when_a_plan_is_learnt_that_wants_them() -> None:
    told = Told().met("other", at_ms=T0 - DAY)
    told.driver.drain()
    assert told.driver.step.observe(control(replace(plan(replace(PAID, covariate_days=3)), name="later")))
    told.add(outcome("o", "u", 1.0, T0 - DAY), T0 - DAY).add(assigned("later", "u", T0))
    assert [from_sums(event.moments["a"]) for event in told.events() if event.experiment == "later" and event.metric] == [
        Moments.of(0, 0, 100)
    ]


def test_one_partition_may_be_behind_a_closing_and_another_before_it() -> None:
    plans, before = Plans(), replace(PAID, covariate_days=3)
    for one in (plan(before), replace(STOPPED, metrics=(before,))):
        assert plans.observe(one)
    assert [sorted(plans.wanted(at_ms)) for at_ms in (CLOSES - 1, CLOSES, CLOSES - 1)] == [["paid"], [], ["paid"]]


def test_what_a_closed_experiment_has_yet_to_tell_is_told_as_if_it_ran() -> None:
    head = Head(0, emitted_ms={"e": T0}, changed={"e": ["paid"]})
    assert not head.let_go(["e"])
    assert head.emitted_ms == {"e": T0}

"""A made-up world: units that ask, see a variant, buy and fail; and, from the same draws alone, what an experiment on it must come to.

Nothing here uses the code that counts. Times are chosen so that what is late is late in whatever order it arrives: a first outcome of each
partition sets the clock ahead, what is in time lies within less than the lateness of it, and what is late lies further behind. Days before,
each within less than the lateness, come before that clock is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import xxhash

from millrace.infra.kafka.partition import partition_of
from millrace.schemas.evidence import Kind
from millrace.schemas.experiment import Analysis, Condition, Plan, State, Test, Variant
from millrace.schemas.metric import Aggregation, Direction, Metric, Role, Source

MODEL = "m"
ARMS = ("control", "treatment")
NAMED = 5
"""So many units have their variant named by hand."""
LATENESS_SECONDS = 60.0
CLOCK_SECONDS, SPREAD_SECONDS, LATE_SECONDS = 240.0, 50.0, 120.0
CAP_CENTS = 20_000
REVENUE, VISIT, ERROR = range(3)
OUTCOME = ("revenue", "visit", "error")
POISON = b'{"unit_id":"u1","metric":"revenue"}'
Ints = np.ndarray[Any, np.dtype[np.int64]]


class World:
    """So many requests of a quarter as many units, and what happens to these. ``name`` is the experiment's."""

    def __init__(self, name: str, requests: int, partitions: int, seed: int) -> None:
        self.name, self._partitions = name, partitions
        self._rng = rng = np.random.default_rng(seed)
        self.began = datetime.now(UTC)
        self._units = units = requests // 4
        self.unit_of = rng.integers(0, units, requests)
        self.expired = rng.random(requests) < 0.03
        self.twice = rng.random(requests) < 0.02
        self.arm = np.array([self._arm(self.unit(number)) for number in range(units)])
        self.assigned = np.bincount(self.unit_of, minlength=units) > 0
        self.exposed = np.bincount(self.unit_of[~self.expired], minlength=units) > 0
        self.counts = self.exposed & (np.arange(units) >= NAMED)
        self._happen(rng)

    def plan(self, version: int) -> Plan:
        """The plan, as if it had been written ten days ago: covariates are counted from the day after on."""
        day = timedelta(days=1)
        window, lower = 3_600.0, Direction.DECREASE
        revenue = Metric(
            name="revenue",
            outcome="revenue",
            role=Role.PRIMARY,
            resolution=0.01,
            cap=CAP_CENTS / 100,
            covariate_days=3,
            window_seconds=window,
        )
        visits = Source(outcome="visit", aggregation=Aggregation.COUNT)
        return Plan(
            name=self.name,
            version=version,
            state=State.RUNNING,
            time=self.began - 10 * day,
            created=self.began - 10 * day,
            started=self.began - 10 * day,
            salt=self.name,
            variants=tuple(Variant(name=name) for name in ARMS),
            targeting=(Condition(field="world", test=Test.EQUALS, value=self.name),),
            overrides={self.unit(number): ARMS[1] for number in range(NAMED)},
            metrics=(
                revenue,
                Metric(name="bought", outcome="revenue", kind=Kind.PROPORTION, resolution=0.01, window_seconds=window),
                Metric(name="per-visit", outcome="revenue", kind=Kind.RATIO, resolution=0.01, denominator=visits, window_seconds=window),
                Metric(
                    name="errors",
                    outcome="error",
                    kind=Kind.PROPORTION,
                    role=Role.GUARDRAIL,
                    direction=lower,
                    limit=1.0,
                    window_seconds=window,
                ),
            ),
            analysis=Analysis(lateness_seconds=LATENESS_SECONDS),
        )

    @property
    def decisions(self) -> int:
        """Requests, each once."""
        return len(self.unit_of)

    def unit(self, number: int) -> str:
        """What a unit is called."""
        return f"{self.name}-u{number}"

    def days_before(self) -> list[bytes]:
        """What units bought yesterday, in any order."""
        noon = self.began.replace(hour=12, minute=0, second=0) - timedelta(days=1)
        order = self._rng.permutation(np.flatnonzero(self.past > 0))
        times = self._rng.uniform(0, SPREAD_SECONDS, len(order))
        return [
            self._outcome(int(unit), REVENUE, int(self.past[unit]), noon + timedelta(seconds=second), f"past-{unit}")
            for unit, second in zip(order, times, strict=True)
        ]

    def clock(self) -> list[bytes]:
        """One outcome of no metric on each partition, which sets the newest time ahead. From now on seconds are counted."""
        self.began = datetime.now(UTC)
        return [_encode(self._fields(unit, "clock", 1.0, CLOCK_SECONDS)) for unit in self._one_each()]

    def stream(self, at_once: int) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Requests and outcomes, mixed; some of both twice, some outcomes late, a few of no form."""
        requests = self._shuffled(np.concatenate([np.arange(len(self.unit_of)), np.flatnonzero(self.twice)]))
        outcomes = self._shuffled(np.concatenate([np.arange(len(self.row_unit)), np.flatnonzero(self.row_twice), self._poison]))
        parts = max(len(requests), len(outcomes)) // at_once + 1
        for some, others in zip(np.array_split(requests, parts), np.array_split(outcomes, parts), strict=True):
            yield [self._request(int(i)) for i in some], [self._row(int(i)) for i in others]

    def closing(self) -> list[bytes]:
        """The last outcome of each partition, which counts."""
        rows = [self._fields(unit, OUTCOME[VISIT], 1.0, CLOCK_SECONDS + SPREAD_SECONDS) for unit in self._one_each()]
        for unit in self._one_each():
            self._add(np.array([unit]), VISIT, np.array([1]))
        return [_encode({**row, "id": f"closing-{number}"}) for number, row in enumerate(rows)]

    @property
    def refused(self) -> int:
        """Outcomes that are none."""
        return len(self._poison)

    def arms(self) -> dict[str, dict[str, int]]:
        """What must be seen of each arm; what is not named is 0."""
        found = {}
        named = np.arange(self._units) < NAMED
        weights = 1 + self.twice
        records = np.bincount(self.unit_of, weights, self._units).astype(int)
        here = self.counts[self.row_unit]
        for arm, name in enumerate(ARMS):
            own = (self.arm == arm) & ~named
            rows = here & (self.arm[self.row_unit] == arm)
            given = {
                "assigned": self.assigned & own,
                "exposed": self.exposed & own,
                "overridden": self.assigned & named & (arm == 1),
                "outcomes": rows & ~self.row_late,
                "late": rows & self.row_late,
                "duplicates": rows & self.row_twice,
            }
            found[name] = {key: int(which.sum()) for key, which in given.items()}
            found[name]["assignments"] = int(records[(self.arm == arm) & ~named].sum() + (records[named].sum() if arm == 1 else 0))
        return found

    def values(self, arm: int) -> dict[str, tuple[Ints, Ints, Ints]]:
        """Of each unit of an arm that counts, by metric: its value, its denominator and its covariate, in whole steps."""
        which = self.counts & (self.arm == arm)
        spent, bought = self._sum(REVENUE), self._number(REVENUE) > 0
        nothing = np.zeros(int(which.sum()), np.int64)
        return {
            "revenue": (np.minimum(spent, CAP_CENTS)[which], nothing, np.minimum(self.past, CAP_CENTS)[which]),
            "bought": (bought[which].astype(np.int64), nothing, nothing),
            "per-visit": (spent[which], self._number(VISIT)[which], nothing),
            "errors": ((self._number(ERROR) > 0)[which].astype(np.int64), nothing, nothing),
        }

    def _happen(self, rng: np.random.Generator) -> None:
        units = self._units
        taste = rng.lognormal(3.0, 1.0, units)
        self.past = np.where(rng.random(units) < 0.6, np.rint(100 * taste * rng.lognormal(0, 0.3, units)), 0).astype(np.int64)
        self.row_unit, self.row_kind, self.row_cents = (np.zeros(0, np.int64) for _ in range(3))
        self.row_late, self.row_twice = np.zeros(0, bool), np.zeros(0, bool)
        visits = np.repeat(np.arange(units), rng.poisson(3.0, units))
        self._add(visits, VISIT, np.ones(len(visits), np.int64))
        buyers = np.repeat(np.arange(units), rng.poisson(np.where(self.arm == 1, 0.9, 0.6)))
        self._add(buyers, REVENUE, np.rint(100 * taste[buyers] * rng.lognormal(0, 0.3, len(buyers))).astype(np.int64) + 1)
        failed = np.flatnonzero(rng.random(units) < np.where(self.arm == 1, 0.06, 0.05))
        self._add(failed, ERROR, np.ones(len(failed), np.int64))
        rows = len(self.row_unit)
        self.row_late, self.row_twice = rng.random(rows) < 0.05, rng.random(rows) < 0.05
        self._seconds = np.where(self.row_late, LATE_SECONDS, CLOCK_SECONDS) + rng.uniform(0, SPREAD_SECONDS, rows)
        self._poison = np.full(max(3, rows // 1_000), -1)

    def _add(self, units: Any, kind: int, cents: Any) -> None:
        """Rows that are neither late nor there twice."""
        more = len(units)
        self.row_unit = np.concatenate([self.row_unit, units])
        self.row_kind = np.concatenate([self.row_kind, np.full(more, kind)])
        self.row_cents = np.concatenate([self.row_cents, cents])
        self.row_late, self.row_twice = (np.concatenate([flags, np.zeros(more, bool)]) for flags in (self.row_late, self.row_twice))

    def _sum(self, kind: int) -> Ints:
        rows = (self.row_kind == kind) & ~self.row_late
        found = np.zeros(self._units, np.int64)
        np.add.at(found, self.row_unit[rows], self.row_cents[rows])
        return found

    def _number(self, kind: int) -> Ints:
        return np.bincount(self.row_unit[(self.row_kind == kind) & ~self.row_late], minlength=self._units).astype(np.int64)

    def _arm(self, unit: str) -> int:
        return int((xxhash.xxh64_intdigest(f"{self.name}:variant:{unit}".encode()) >> 11) / 2**53 >= 0.5)

    def _one_each(self) -> list[int]:
        """A unit that counts, of each partition."""
        found: dict[int, int] = {}
        for number in np.flatnonzero(self.counts):
            found.setdefault(partition_of(self.unit(int(number)), self._partitions), int(number))
            if len(found) == self._partitions:
                break
        return list(found.values())

    def _shuffled(self, places: Any) -> Any:
        return self._rng.permutation(places)

    def _request(self, i: int) -> bytes:
        said = {"id": f"{self.name}-r{i}", "unit_id": self.unit(int(self.unit_of[i])), "model": MODEL, "vector": [i % 7, 1]}
        late = {"deadline": self.began - timedelta(days=1)} if self.expired[i] else {}
        return _encode({**said, **late, "context": {"world": self.name}})

    def _row(self, i: int) -> bytes:
        if i < 0:
            return POISON
        time = self.began + timedelta(seconds=float(self._seconds[i]))
        return self._outcome(int(self.row_unit[i]), int(self.row_kind[i]), int(self.row_cents[i]), time, f"o{i}")

    def _outcome(self, unit: int, kind: int, cents: int, time: datetime, own: str) -> bytes:
        value = cents / 100 if kind == REVENUE else float(cents)
        return _encode({"id": own, "unit_id": self.unit(unit), "metric": OUTCOME[kind], "value": value, "time": time})

    def _fields(self, unit: int, metric: str, value: float, seconds: float) -> dict[str, Any]:
        return {"unit_id": self.unit(unit), "metric": metric, "value": value, "time": self.began + timedelta(seconds=seconds)}


_encode = msgspec.json.Encoder().encode

"""Whatever happens, in whatever order: once the last owner is left alone, every record is one row."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.streams.intent import Insert, Intent
from tests.ledger import LIMITS, TOPIC_ID, Flight, Group, MemoryTable, Owner, record

WEIGHTS = {"work": 30, "begin": 6, "freeze": 3, "lose": 4, "land": 6, "wait": 8, "jump": 2, "append": 4, "takeover": 3, "forget": 1}
LEASE = LIMITS.lease_seconds + LIMITS.insert_seconds


class World:
    """A log, a table, and all owners that there ever were: any of them may go on at any time."""

    def __init__(self, seed: int, table: MemoryTable | None = None) -> None:
        self.random = random.Random(seed)
        self.log = Group([record(n) for n in range(7)], 7)
        self.table = table or MemoryTable(LIMITS.insert_seconds)
        self.owners = [Owner(self.log, self.table)]
        self.frozen: list[Owner] = []

    def step(self) -> None:
        chance = self.random
        owner = self.owners[-1] if chance.random() < 0.7 else chance.choice(self.owners)
        match chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]:
            case "work":
                owner.poll(chance.randint(1, 8))
                owner.ask(cut_now=chance.random() < 0.5)
                if not isinstance(owner.pending, Insert) or chance.random() < 0.5:
                    owner.do()
            case "begin":
                owner.begin()
            case "freeze":
                owner.begin()
                self.owners.append(Owner(self.log, self.table))
            case "lose":
                owner.lose()
            case "land" if self.table.flights:
                self.table.land(chance.choice(self.table.flights))
            case "wait":
                self.table.advance(chance.random() * 3)
            case "jump":
                self.table.advance(chance.uniform(0.5, 1.1) * LEASE)
            case "append":
                # A record, perhaps behind what an aborted transaction left, and perhaps a marker behind it.
                self.log.log.append(record(self.log.end + chance.randint(0, 2)))
                self.log.end = self.log.log[-1].offset + 1 + chance.randint(0, 1)
            case "takeover":
                self.owners.append(Owner(self.log, self.table))
            case "forget":
                self.table.forget(LEASE)
            case _:
                return

    def finish(self) -> None:
        """The last owner goes on alone; inserts that others have begun may still end well."""
        owner = self.owners[-1]
        for _ in range(4_000):
            if owner.lane.idle and owner.lane.start >= self.log.end:
                return
            owner.poll()
            if owner.ask() is None:
                self.table.advance(0.4)
                if self.table.flights and self.random.random() < 0.3:
                    self.table.land(self.random.choice(self.table.flights))
            owner.do()
        raise AssertionError(f"never done: {owner.lane.phase}")


@dataclass
class Watchful(MemoryTable):
    """A table that keeps what was looked at and what was begun, and lets no insert begin under a token that it may not have."""

    begun: dict[str, list[int]] = field(default_factory=dict)
    """The offsets of each token that was ever used."""
    looks: list[tuple[Intent, frozenset[str]]] = field(default_factory=list)
    """Each look, with the tokens that had been used before it."""

    def present(self, intent: Intent) -> frozenset[int]:
        self.looks.append((intent, frozenset(self.begun)))
        return super().present(intent)

    def begin(self, intent: Intent, offsets: list[int]) -> Flight:
        flight = super().begin(intent, offsets)
        assert self.begun.setdefault(flight.token, offsets) == offsets, "one token, two blocks"
        about = [(looked, used) for looked, used in self.looks if looked.start < intent.end and intent.start < looked.end]
        if about:
            used = next((used for looked, used in reversed(about) if looked == intent), None)
            assert used is not None, "inserted without looking, although others had looked"
            assert flight.token not in used, "a token from before the look"
        return flight


def test_no_token_is_used_again_after_a_look() -> None:
    """ClickHouse would drop the absent rows as a repeated insert, or, where it has forgotten the token, double the present ones."""
    after_looks = 0
    for seed in range(300):
        table = Watchful(LIMITS.insert_seconds)
        world = World(seed, table)
        for _ in range(150):
            world.step()
        world.finish()
        after_looks += sum(intent.token(TOPIC_ID, 0) in table.begun for intent, _ in table.looks)
    assert after_looks > 150, "few inserts followed a look: this says little"


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_every_record_is_one_row(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        world.step()
    world.finish()
    assert world.table.rows == Counter(record.offset for record in world.log.log)

"""Whatever happens, in whatever order: once the last owner is left alone, every record is one row."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.streams.intent import Insert
from tests.ledger import LIMITS, Group, MemoryTable, Owner, record

WEIGHTS = {"work": 30, "begin": 6, "freeze": 3, "lose": 4, "land": 6, "wait": 8, "jump": 2, "append": 4, "takeover": 3, "forget": 1}
LEASE = LIMITS.lease_seconds + LIMITS.insert_seconds


class World:
    """A log, a table, and all owners that there ever were: any of them may go on at any time."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = Group([record(n) for n in range(7)], 7)
        self.table = MemoryTable(LIMITS.insert_seconds)
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


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32))
def test_every_record_is_one_row(seed: int) -> None:
    world = World(seed)
    for _ in range(150):
        world.step()
    world.finish()
    assert world.table.rows == Counter(record.offset for record in world.log.log)

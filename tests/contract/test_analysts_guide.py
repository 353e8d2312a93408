"""Do the questions that docs/analysts.md shows get the right answers?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.settings import ClickHouseSettings
from tests.contract.test_views import APPENDED_MS, assignment, insert, iso, outcome, prediction, request
from tests.stack import ClickHouse

GUIDE = (Path(__file__).parents[2] / "docs" / "analysts.md").read_text()
RIGHT, WRONG = 0.0, 1.0
"""Labels, for a score of 0.25."""

DECIDED: dict[str, tuple[str, str | None, bool, float]] = {
    "r1": ("a", None, True, RIGHT),
    "r2": ("a", None, True, RIGHT),
    "r3": ("a", "x", False, WRONG),
    "r4": ("b", None, True, WRONG),
    "r5": ("b", "x", False, RIGHT),
    "r6": ("b", "y", True, RIGHT),
    "r7": ("b", "x", False, RIGHT),
    "r8": ("a", None, False, WRONG),
}
"""Request to: the variant of `approval`; that of `aaa`, if it takes part, which chooses models first and is always met; whether `approval`
was met; the outcome. The last one expired."""


@pytest.fixture(scope="module")
def client(clickhouse: ClickHouse) -> Client:
    client = Client(ClickHouseSettings(address=clickhouse.url, database="guide"))
    migrate(client)
    client.use_database()
    assigned: list[dict[str, Any]] = []
    for name, (variant, other, met, _) in DECIDED.items():
        assigned.append(assignment(f"{name}-approval", name, "u", experiment="approval", variant=variant, exposed=met))
        if other is not None:
            assigned.append(assignment(f"{name}-aaa", name, "u", experiment="aaa", variant=other))
    insert(client, "requests", [request(name, "u") for name in DECIDED])
    insert(client, "assignments", assigned)
    insert(client, "predictions", [answered(name, number) for number, name in enumerate(DECIDED)])
    insert(client, "outcomes", [outcome("label", label, request_id=name) for name, (*_, label) in DECIDED.items()])
    return client


def answered(name: str, number: int) -> dict[str, Any]:
    """A prediction appended 50 ms after its request, which was taken up after 6 ms; the last one expired."""
    fields = {"time": iso(APPENDED_MS + number - 44), "latency_seconds": 0.006}
    late = name == "r8"
    return prediction(f"{name}-p", name, **fields, outputs={} if late else {"score": 0.25}, status="expired" if late else "ok")


def shown(word: str) -> str:
    """The one statement of the guide that has this in it."""
    (statement,) = [one for one in re.findall(r"millrace sql (?:--json )?\"(.*?)\"\n", GUIDE, re.DOTALL) if word in one]
    return str(statement)


def test_variants_are_compared_over_what_was_exposed_to_that_experiment(client: Client) -> None:
    """Another experiment of the same requests was met all the same, and plays no part."""
    assert client.rows(shown("avg((outputs")) == [("a", ["m"], 2, 1.0), ("b", ["m"], 2, 0.5)]
    other = shown("avg((outputs").replace("'approval'", "'aaa'")
    assert client.rows(other) == [("x", ["m"], 3, 2 / 3), ("y", ["m"], 1, 1.0)]


def test_percentiles_are_those_of_the_answer(client: Client) -> None:
    assert sorted(row[1:5] for row in client.rows(shown("FROM v_latency"))) == [("m", 1, 0.05, 0.05), ("m", 7, 0.05, 0.05)]

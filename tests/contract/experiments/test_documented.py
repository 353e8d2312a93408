"""Is the statement that docs/experiments.md shows the one that is run, and may an analyst paste it?"""

from __future__ import annotations

import re
from pathlib import Path

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.experiments.moments import moments_sql
from millrace.schemas.evidence import Moments
from millrace.schemas.moments import to_sums
from tests.contract.experiments.documented import AS_OF, PLAN, REVENUE
from tests.contract.experiments.scenario import DAY_US, Scenario

GUIDE = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()


def shown() -> str:
    found = re.search(r"<!-- checked: the batch answer -->\n```sh\nmillrace sql \"\n(.*?)\"\n```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_statement_is_the_one_that_is_run() -> None:
    assert shown() == moments_sql(AS_OF, REVENUE)


def test_a_shell_hands_the_statement_on_as_it_stands() -> None:
    """Between double quotes it would change these."""
    assert not set(shown()) & set('"$`\\!')


def test_an_analyst_is_told_the_moments(client: Client, analyst: Client) -> None:
    s = Scenario(client, PLAN)
    s.happens("u1", 3.0, -DAY_US, metric="revenue")
    s.meets("u1", "control")
    s.happens("u1", 700.0, 1, metric="revenue")
    s.meets("u2", "challenger", partition=1)
    as_of = s.as_of(*AS_OF.ends)
    statement = shown().replace(AS_OF.assignments_id, as_of.assignments_id).replace(AS_OF.outcomes_id, as_of.outcomes_id)
    analyst.use_database()
    for ending in ("", ";", ";\n"):
        assert analyst.rows(statement + ending) == [
            (0, "control", *to_sums(Moments.of(50_000, 0, 300))),
            (1, "challenger", *to_sums(Moments.of(0))),
        ]

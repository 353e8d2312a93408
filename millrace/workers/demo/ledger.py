"""Reading back from ClickHouse, over HTTP, through the analysts' views and as their user: what anybody could do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from millrace.infra.clickhouse.client import Client, Column
from millrace.infra.settings import Settings
from millrace.workers.demo.control import EXPERIMENT
from millrace.workers.demo.judge import Decision
from millrace.workers.demo.result import Arm, Counts
from millrace.workers.demo.traffic import LABEL as LABELLED
from millrace.workers.demo.traffic import PREFIX
from millrace.workers.demo.training import OUTPUT, THRESHOLD, Trained

POLL_SECONDS = 0.1
ANALYST = "analyst"
OURS = f"startsWith(request_id, '{PREFIX}')"
VARIANT = f"variants['{EXPERIMENT}']"
PHISHING = f"outputs['{OUTPUT}']"
LABEL = f"outcomes['{LABELLED}']"
DECIDED = f"mapContains(variants, '{EXPERIMENT}')"
LABELS = f"mapContains(outcomes, '{LABELLED}')"

COUNTS_SQL = f"""\
SELECT count(), countIf(status != 'unanswered'), countIf({DECIDED}), countIf({LABELS})
FROM v_decisions WHERE {OURS}"""
ARMS_SQL = f"""\
SELECT {VARIANT} AS variant, any(model), count(), countIf(status != 'unanswered'), countIf({LABELS}),
       avgIf(({PHISHING} >= {THRESHOLD}) = ({LABEL} = 1), status = 'ok' AND {LABELS})
FROM v_decisions WHERE {OURS} AND variant != '' GROUP BY variant ORDER BY variant"""
ACCURACY_SQL = f"""\
SELECT {VARIANT} AS variant, model, count() AS decisions,
       avg(({PHISHING} >= {THRESHOLD}) = ({LABEL} = 1)) AS accuracy
FROM v_decisions WHERE {OURS} GROUP BY variant, model ORDER BY variant"""
ROWS_SQL = f"""\
SELECT request_id, unit_id AS unit, {VARIANT} AS variant, model, {PHISHING} AS phishing, {LABEL} AS label, answer_seconds AS seconds
FROM v_decisions WHERE {OURS} ORDER BY request_id LIMIT 5"""
DECISIONS_SQL = f"""\
SELECT request_id, unit_id, {VARIANT}, model, status,
       if(mapContains(outputs, '{OUTPUT}'), {PHISHING}, NULL), if({LABELS}, {LABEL}, NULL)
FROM v_decisions WHERE {OURS}"""
DISAGREEING_SQL = f"SELECT countIf(NOT ifNull(agrees, false)) FROM v_assignments WHERE experiment = '{EXPERIMENT}'"


class Ledger:
    """The demo's rows in ClickHouse. Use it as a context."""

    def __init__(self, settings: Settings) -> None:
        self._client = Client(replace(settings.clickhouse, user=ANALYST))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wait(self, each: int, patience_seconds: float) -> Counts:
        """The counts, as soon as there are so many of each, else after the patience."""
        deadline = time.monotonic() + patience_seconds
        while (found := Counts(*self._client.rows(COUNTS_SQL)[0])) != Counts(each, each, each, each):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        return found

    def arms(self, models: Sequence[Trained]) -> dict[str, Arm]:
        """What there is of each variant."""
        kinds = {model.name: model.kind for model in models}
        return {name: _arm(model, kinds, counts) for name, model, *counts in self._client.rows(ARMS_SQL)}

    def first_rows(self) -> tuple[list[Column], list[tuple[Any, ...]]]:
        """The first few decisions as the view shows them."""
        return self._client.table(ROWS_SQL)

    def decisions(self) -> list[Decision]:
        """All of the demo's decisions."""
        return [Decision(*row) for row in self._client.rows(DECISIONS_SQL)]

    def disagreeing(self) -> int:
        """How many assignments have a bucket that ClickHouse derives otherwise."""
        return int(self._client.rows(DISAGREEING_SQL)[0][0])


def _arm(model: str, kinds: dict[str, str], counts: list[Any]) -> Arm:
    assignments, predictions, outcomes, accuracy = counts
    return Arm(
        model=model,
        kind=kinds.get(model, ""),
        assignments=assignments,
        predictions=predictions,
        outcomes=outcomes,
        accuracy=None if math.isnan(accuracy) else round(accuracy, 4),
    )

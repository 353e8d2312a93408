"""Where logs end, asked without waiting: a partition that is paused or held fetches nothing that would tell."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import Future
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported, not in its __all__

from millrace.infra.kafka.clients import ANSWER_SECONDS
from millrace.infra.kafka.positions import Place


class LogEnds:
    """Asks Kafka from time to time up to where committed readers could read; the answer is looked at in a later call."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._asked: dict[Place, Future[Any]] = {}
        self._known: dict[Place, int] = {}

    def ask(self, places: Collection[Place]) -> None:
        """Ask anew about these, unless a question is still open."""
        if places and not self._asked:
            latest: Any = OffsetSpec.latest
            wanted = {TopicPartition(*place): latest() for place in places}
            # What a pending transaction wrote is nothing that a reader is behind with.
            futures = self._client.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_SECONDS / 3)
            self._asked = {(part.topic, part.partition): future for part, future in futures.items()}

    def look(self) -> dict[Place, str]:
        """Look at what was answered so far; the places of which Kafka just told nothing, and why. What was known of them stays."""
        if not self._asked or not all(future.done() for future in self._asked.values()):
            return {}
        asked, self._asked = self._asked, {}
        known, silent = {}, {}
        for place, future in asked.items():
            try:
                known[place] = int(future.result().offset)
            except KafkaException as error:
                silent[place] = error.args[0].str()
        self._known = {place: end for place, end in self._known.items() if place in silent} | known
        return silent

    def known(self, place: Place) -> int | None:
        """The end as Kafka told it last; None where it never did."""
        return self._known.get(place)

"""Whether the topics are still the ones that a worker began with, asked without waiting."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from millrace.infra.kafka.clients import ANSWER_SECONDS, TopicInfo
from millrace.infra.kafka.positions import Remedies
from millrace.infra.kafka.triage import passing
from millrace.schemas.errors import Stop, TopicRecreated


class Identity:
    """Asks Kafka for the ids of some topics, from time to time; the answer is looked at in a later call."""

    def __init__(self, client: AdminClient, infos: Mapping[str, TopicInfo], remedies: Remedies) -> None:
        self._client = client
        self._remedies = remedies
        self._infos = infos
        self._asked: dict[str, Future[Any]] = {}
        self.silent = False
        """Whether Kafka left the last question unanswered."""

    def ask(self) -> None:
        """Ask anew, unless a question is still open."""
        if not self._asked:
            self._asked = self._client.describe_topics(TopicCollection(list(self._infos)), request_timeout=ANSWER_SECONDS / 3)

    def look(self) -> None:
        """Look at what was answered so far. Raises TopicRecreated for a topic that is no longer the same."""
        if self._asked and all(future.done() for future in self._asked.values()):
            asked, self._asked = self._asked, {}
            answers = [self._same(name, future) for name, future in asked.items()]
            self.silent = not all(answers)

    def unchanged(self) -> bool:
        """Ask anew and wait for the answer: True where all are the same, False where Kafka did not say. Raises as ``look`` does."""
        self._asked, self.silent = {}, True  # an open question may be answered with what was so before
        self.ask()
        wait(self._asked.values(), ANSWER_SECONDS)
        self.look()
        return not self.silent

    def _same(self, name: str, future: Future[Any]) -> bool:
        """True where it is the same, False where there was no answer."""
        before = self._infos[name]
        try:
            answer = future.result()
        except KafkaException as error:
            problem = error.args[0]
            if passing(problem):
                return False
            if problem.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Stop(f"Kafka did not describe topic {name}: {problem.str()}") from None
            now = None
        else:
            now = TopicInfo(str(answer.topic_id), len(answer.partitions))
        if now != before:
            raise TopicRecreated(
                f"topic {name} was deleted, re-created or re-partitioned while it was read ({before} is now {now}). "
                f"{self._remedies.recreated}"
            )
        return True

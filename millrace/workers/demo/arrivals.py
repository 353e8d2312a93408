"""When a reader of committed predictions sees each answer, watched by a thread of its own while requests are published."""

from __future__ import annotations

import threading
import time

import msgspec
from msgspec import Struct

from millrace.infra.kafka.tail import From, Spot, Tail
from millrace.infra.settings import Settings
from millrace.schemas.errors import MillraceError
from millrace.schemas.topics import PREDICTIONS
from millrace.workers.demo.training import OUTPUT

READ_SECONDS = 0.1


class Answer(Struct):
    """What the watcher needs of a prediction."""

    request_id: str
    shadow: bool = False
    outputs: dict[str, float] = {}


_answer = msgspec.json.Decoder(Answer).decode


class Arrivals:
    """The first time that each request's committed prediction was seen, in seconds of the monotonic clock, and how often it came again.

    ``said`` is the first answer itself, where there is one: what an outside producer acts on.

    Use it as a context: it watches from the present end of the topic on until it is left.
    """

    def __init__(self, settings: Settings, prefix: str) -> None:
        self.first: dict[str, float] = {}
        self.said: dict[str, float] = {}
        self.repeated = 0
        self._prefix = prefix
        self._tail = Tail(settings, PREDICTIONS.name, Spot(place=From.LATEST))
        self._leave = threading.Event()
        self._error: MillraceError | None = None
        self._thread = threading.Thread(target=self._watch, name="arrivals", daemon=True)

    def __enter__(self) -> Arrivals:
        self._tail.read(READ_SECONDS)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()
        self._tail.close()

    def wait(self, answers: int, patience_seconds: float) -> None:
        """Until so many requests are answered, or nothing new has come for the patience. Raises what stopped the watcher."""
        known, deadline = -1, 0.0
        while len(self.first) < answers:
            if self._error is not None:
                raise self._error
            if len(self.first) > known:
                known, deadline = len(self.first), time.monotonic() + patience_seconds
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)

    def _watch(self) -> None:
        try:
            while not self._leave.is_set():
                self._take()
        except MillraceError as error:
            self._error = error

    def _take(self) -> None:
        records = self._tail.read(READ_SECONDS)
        now = time.monotonic()
        for record in records:
            answer = _answer(record.value or b"{}")
            if answer.shadow or not answer.request_id.startswith(self._prefix):
                continue
            if answer.request_id in self.first:
                self.repeated += 1
            else:
                self.first[answer.request_id] = now
                if OUTPUT in answer.outputs:
                    self.said[answer.request_id] = answer.outputs[OUTPUT]

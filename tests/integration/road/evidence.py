"""What each request on the topic must have come to, worked out without the code under test, beside what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator

from millrace.infra.kafka.clients import describe, full_name
from millrace.infra.kafka.offsets import committed
from millrace.infra.settings import Settings
from millrace.schemas.record import Record
from millrace.schemas.topics import ASSIGNMENTS, PREDICTIONS, REQUESTS
from millrace.schemas.wire import codec, derived_id
from millrace.workers.inference import ROLE
from tests.integration.harness.checker import Answer, Evidence
from tests.integration.harness.readback import commits, in_order, letters
from tests.integration.road.traffic import MODEL, NUMBER, Kind, Traffic, kind_of, reason_of, unit_of

EXPERIMENT = "exp"
STATUS = {Kind.ANSWERED: b"ok", Kind.LATE: b"expired"}
EXPOSED = {Kind.ANSWERED: b"exposed", Kind.BARE: b"exposed", Kind.LATE: b"not exposed", Kind.LATE_BARE: b"not exposed"}


def evidence(settings: Settings, traffic: Traffic) -> Evidence:
    """Everything the checker asks for. The same request sent twice has the same ids twice: their copies are counted apart.

    Where the topic was made anew, all of it is about the topic as it is now.
    """
    requests = in_order(settings, REQUESTS)
    numbers = [number_of(record) for record in requests]
    assert Counter(numbers) == traffic.standing, "the topic holds other requests than were sent"
    infos = describe(settings, [full_name(settings, REQUESTS)])
    (info,) = infos.values()
    gone = {f"r{number}" for number in traffic.gone}
    places = {(record.partition, record.offset): number for record, number in zip(requests, numbers, strict=True)}
    positions = {("requests", place[1]): offset for place, offset in committed(settings, ROLE, infos).items()}
    return Evidence(
        expected=list(_copies(_expected(requests, info.topic_id))),
        actual=list(_copies([*_predictions(settings, gone), *_assignments(settings, gone), *_letters(settings, info.topic_id, places)])),
        commits=[commit for commit in commits(settings) if {piece.topic_id for piece in commit.inputs} == {info.topic_id}],
        positions=positions,
    )


def number_of(record: Record) -> int:
    """The number that the producer gave this request."""
    return next(int(value or b"") for name, value in record.headers or () if name == NUMBER)


def _expected(requests: Iterable[Record], topic_id: str) -> Iterator[Answer]:
    for record in requests:
        number = number_of(record)
        kind, unit, name = kind_of(number), unit_of(number), f"r{number}"
        if kind is Kind.POISON:
            letter = derived_id(topic_id, str(record.partition), str(record.offset))
            yield Answer(letter, f"dead-letters/{record.partition}", reason_of(number).encode(), record.spot)
            continue
        yield Answer(derived_id(name, EXPERIMENT), f"assignments/{unit}", EXPOSED[kind], record.spot)
        if kind in STATUS:
            yield Answer(derived_id(name, MODEL), f"predictions/{unit}", STATUS[kind], record.spot)


def _predictions(settings: Settings, gone: Container[str]) -> Iterator[Answer]:
    decode = codec(PREDICTIONS).decode
    for record in in_order(settings, PREDICTIONS):
        event = decode(record.value, record.headers)
        if event.request_id in gone:
            continue
        ran = bool(event.outputs) and event.batch_records > 0
        consistent = ran == (event.status.value == "ok") and event.unit_id == (record.key or b"").decode()
        yield Answer(event.id, f"predictions/{event.unit_id}", event.status.value.encode() if consistent else bytes(record.value or b""))


def _assignments(settings: Settings, gone: Container[str]) -> Iterator[Answer]:
    decode = codec(ASSIGNMENTS).decode
    for record in in_order(settings, ASSIGNMENTS):
        event = decode(record.value, record.headers)
        if event.request_id not in gone:
            yield Answer(event.id, f"assignments/{event.unit_id}", b"exposed" if event.exposed else b"not exposed")


def _letters(settings: Settings, topic_id: str, places: dict[tuple[int, int], int]) -> Iterator[Answer]:
    for letter in letters(settings):
        if letter.topic_id != topic_id:
            continue
        number = places[(letter.partition, letter.offset)]
        wanted = reason_of(number) if kind_of(number) is Kind.POISON else "none"
        yield Answer(letter.id, f"dead-letters/{letter.partition}", (wanted if wanted in letter.reason else letter.reason).encode())


def _copies(answers: Iterable[Answer]) -> Iterator[Answer]:
    """Each answer with its copy's number in its id."""
    seen: Counter[str] = Counter()
    for answer in answers:
        seen[answer.id] += 1
        yield Answer(f"{answer.id}#{seen[answer.id]}", answer.key, answer.value, answer.source)

"""Sample events: the bytes that they have had since they were first published still mean the same.

A file here is never changed. An event whose new version cannot pass has broken its readers: give the new field a default instead.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from millrace.schemas.event import Event
from millrace.schemas.plain import to_msgpack
from millrace.schemas.record import Format
from millrace.schemas.samples import SAMPLES
from millrace.schemas.topics import BY_NAME, TOPICS
from millrace.schemas.wire import codec

FOLDER = Path(__file__).parent / "samples"
BEFORE = FOLDER / "before"
"""What was published before an event had all the fields that it has now."""
HEADERS = {form: [("content-type", form.value.encode())] for form in Format}
ENDINGS = {Format.JSON: "json", Format.MSGPACK: "msgpack"}


def golden(topic: str, form: Format) -> bytes:
    return (FOLDER / f"{topic}.{ENDINGS[form]}").read_bytes()


def plain(event: Event) -> object:
    """An event with bytes that stand for themselves parsed, so that two formats can be compared."""
    return msgspec.json.decode(msgspec.json.encode(event))


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_the_json_that_was_published_still_means_the_sample(topic: str) -> None:
    event = codec(BY_NAME[topic]).decode(golden(topic, Format.JSON), HEADERS[Format.JSON])
    assert plain(event) == plain(SAMPLES[topic])


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_the_messagepack_that_was_published_still_means_the_sample(topic: str) -> None:
    event = codec(BY_NAME[topic]).decode(golden(topic, Format.MSGPACK), HEADERS[Format.MSGPACK])
    names = [name for name in event.__struct_fields__ if not isinstance(getattr(event, name), msgspec.Raw)]
    assert [getattr(event, name) for name in names] == [getattr(SAMPLES[topic], name) for name in names]
    raws = [name for name in event.__struct_fields__ if isinstance(getattr(event, name), msgspec.Raw)]
    for name in raws:
        mine, golden_bytes = bytes(getattr(SAMPLES[topic], name)), bytes(getattr(event, name))
        assert (msgspec.json.decode(mine) if mine else None) == (msgspec.msgpack.decode(golden_bytes) if golden_bytes else None)


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_every_field_of_a_sample_is_set(topic: str) -> None:
    """A field left at its default would not be in the bytes, and so not be guarded. ``vector`` stands where ``features`` does not."""
    stated = msgspec.json.decode(golden(topic, Format.JSON), type=dict[str, object])
    assert set(SAMPLES[topic].__struct_fields__) - set(stated) <= {"vector", "error"}


@pytest.mark.parametrize("topic", [topic.name for topic in TOPICS])
def test_unknown_fields_of_a_later_version_are_skipped(topic: str) -> None:
    later = msgspec.json.decode(golden(topic, Format.JSON), type=dict[str, object]) | {"a_later_field": [1, {"x": None}]}
    assert plain(codec(BY_NAME[topic]).decode(msgspec.json.encode(later))) == plain(SAMPLES[topic])


@pytest.mark.parametrize("form", Format, ids=lambda form: form.name)
@pytest.mark.parametrize("topic", sorted({file.stem for file in BEFORE.iterdir()}))
def test_bytes_of_before_mean_the_sample_without_what_came_later(topic: str, form: Format) -> None:
    """What they state is the sample's; what they do not state is what it was when nobody could state it."""
    stated = msgspec.json.decode((BEFORE / f"{topic}.json").read_bytes(), type=dict[str, object])
    event = codec(BY_NAME[topic]).decode((BEFORE / f"{topic}.{ENDINGS[form]}").read_bytes(), HEADERS[form])
    later = [field for field in msgspec.structs.fields(event) if field.encode_name not in stated]
    assert later
    for field in later:
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        assert getattr(event, field.name) == default
    meant = msgspec.structs.replace(SAMPLES[topic], **{field.name: getattr(event, field.name) for field in later})
    assert plain(event) == plain(meant)


def test_a_binary_vector_is_the_same_as_its_numbers() -> None:
    request = {"id": "r", "unit_id": "u", "model": "m", "vector": [1.0, -2.5]}
    event = codec(BY_NAME["requests"]).decode(to_msgpack(request), HEADERS[Format.MSGPACK])
    assert msgspec.msgpack.decode(event.vector) == bytes.fromhex("0000803f000020c0")

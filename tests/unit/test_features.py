"""Do the features of many requests become the right matrix, and does one bad request leave its neighbours alone?"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from millrace.schemas.limits import Limits
from millrace.schemas.record import Format, Record
from millrace.streams.features import FeatureReader, Rows
from tests.models import least, request

NAMES = ("a", "b", "c")
LIMITS = Limits(features=6, string_characters=12)
VALUES = np.array([[i, i / 3, -i] for i in range(5)], np.float32)


def by_name(i: int, **more: Any) -> dict[str, Any]:
    return least(i, features=dict(zip(NAMES, VALUES[i].tolist(), strict=True)) | more)


def in_order(i: int) -> dict[str, Any]:
    return least(i, features=None, vector=VALUES[i].tolist())


def binary(i: int) -> dict[str, Any]:
    return least(i, features=None, vector=VALUES[i].tobytes())


def read(*records: Record, names: tuple[str, ...] = NAMES, defaults: dict[str, float] | None = None, limits: Limits = LIMITS) -> Rows:
    return FeatureReader(names, defaults or {}, limits).read(records)


def raw(features: bytes) -> Record:
    return request(b'{"id":"r","unit_id":"u","model":"m",' + features + b"}")


WAYS = [(by_name, Format.JSON), (in_order, Format.JSON), (by_name, Format.MSGPACK), (in_order, Format.MSGPACK), (binary, Format.MSGPACK)]


@pytest.mark.parametrize(("way", "form"), WAYS)
def test_every_way_of_stating_features_gives_the_same_matrix(way: Any, form: Format) -> None:
    rows = read(*(request(way(i), form) for i in range(5)))
    assert rows.matrix.dtype == np.float32
    assert rows.faults == {}
    assert rows.completed == {}
    np.testing.assert_array_equal(rows.matrix, VALUES)


@pytest.mark.parametrize("form", [Format.JSON, Format.MSGPACK])
@pytest.mark.parametrize("name", ['city="NY"', "a\\b", "a\nb"])
def test_a_name_that_has_to_be_escaped_is_read_too(name: str, form: Format) -> None:
    rows = read(*(request(least(i, features={name: float(i)}), form) for i in range(3)), names=(name,))
    assert rows.faults == {}
    np.testing.assert_array_equal(rows.matrix, [[0], [1], [2]])


def test_all_ways_may_stand_in_one_batch() -> None:
    rows = read(*(request(way(i), form) for i, (way, form) in enumerate(WAYS)))
    assert rows.faults == {}
    np.testing.assert_array_equal(rows.matrix, VALUES)


@pytest.mark.parametrize("width", [1, 15, 16, 300, 70_000])
@pytest.mark.parametrize("form", [Format.JSON, Format.MSGPACK])
def test_any_width_is_read(width: int, form: Format) -> None:
    names = tuple(f"f{i}" for i in range(width))
    values = np.arange(2 * width, dtype=np.float32).reshape(2, width)
    vectors = [request(least(i, features=None, vector=values[i].tolist()), form) for i in range(2)]
    packed = [request(least(i, features=None, vector=values[i].tobytes()), Format.MSGPACK) for i in range(2)]
    named = [request(least(i, features=dict(zip(names, values[i].tolist(), strict=True))), form) for i in range(2)]
    for records in (vectors, packed, named):
        np.testing.assert_array_equal(read(*records, names=names, limits=Limits(features=width)).matrix, values)


def test_names_may_come_in_any_order_with_whole_numbers_escapes_and_spaces() -> None:
    rows = read(raw(b'"features": { "c" : -0 , "\\u0061":1 , "b":2.5e0 }'), raw(b'"vector": [ 1 , 2.5 , 0 ]'))
    np.testing.assert_array_equal(rows.matrix, [[1, 2.5, 0], [1, 2.5, 0]])


@pytest.mark.parametrize("form", [Format.JSON, Format.MSGPACK])
def test_names_that_the_model_does_not_know_are_skipped(form: Format) -> None:
    rows = read(request(by_name(0, zzz=5.0), form), request(by_name(1), form))
    assert rows.faults == {}
    np.testing.assert_array_equal(rows.matrix, VALUES[:2])


WRONG = [
    (b'"features":{"a":1,"b":"2","c":3}', "$.features['b']: expected a number, got str"),
    (b'"features":{"a":1,"b":null,"c":3}', "$.features['b']: expected a number, got null"),
    (b'"features":{"a":1,"b":true,"c":3}', "$.features['b']: expected a number, got bool"),
    (b'"features":{"a":1,"b":2,"c":3,"d":"x"}', "$.features['d']: expected a number, got str"),
    (b'"features":{"a":1,"b":1e39,"c":3}', "$.features['b']: 1e+39 does not fit into float32"),
    (b'"features":{"a":1,"b":1e999,"c":3}', "$.features: Number out of range"),
    (b'"features":{"a":1,"b":' + b"9" * 400 + b',"c":3}', "$.features"),
    (b'"features":{"a":1,"b":2,"\xff":3}', "$.features: 'utf-8'"),
    (b'"features":[1,2,3]', "$.features: expected an object"),
    (b'"features":"abc"', "$.features: expected an object"),
    (b'"features":{"a":1,"b":2,"c":3,"d":1,"e":1,"f":1,"g":1}', "$.features: 7 features, the limit is 6"),
    (b'"features":{"a":1,"b":2,"c":3,"ddddddddddddd":1}', "$.features: a name of 13 characters, the limit is 12"),
    (b'"vector":[1,"2",3]', "$.vector[1]: expected a number, got str"),
    (b'"vector":[1,2,-1e39]', "$.vector[2]: -1e+39 does not fit into float32"),
    (b'"vector":[1,[2],3]', "$.vector[1]: expected a number, got list"),
    (b'"vector":{"a":1}', "$.vector: expected a list"),
    (b'"vector":"AAAA"', "$.vector: expected a list"),
    (b'"vector":[1,2,3,4,5,6,7]', "$.vector: 7 features, the limit is 6"),
]


@pytest.mark.parametrize(("features", "where"), WRONG)
def test_a_wrong_payload_is_refused_with_its_place_and_no_neighbour_is_harmed(features: bytes, where: str) -> None:
    rows = read(request(by_name(0)), request(in_order(1)), raw(features), request(by_name(3)), request(in_order(4)))
    assert set(rows.faults) == {2}
    assert rows.faults[2].refused
    assert rows.faults[2].reason.startswith(where)
    np.testing.assert_array_equal(rows.matrix[[0, 1, 3, 4]], VALUES[[0, 1, 3, 4]])
    np.testing.assert_array_equal(rows.without_faults().matrix, VALUES[[0, 1, 3, 4]])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_messagepack_carries_no_number_that_is_not_finite(bad: float) -> None:
    spoilt = VALUES[2].copy()
    spoilt[1] = bad
    for fields, where in (
        ({"features": {"a": 1.0, "b": bad, "c": 1.0}}, "$.features['b']"),
        ({"features": {"a": 1.0, "b": 1.0, "c": 1.0, "d": bad}}, "$.features['d']"),
        ({"features": None, "vector": [1.0, bad, 1.0]}, "$.vector[1]"),
        ({"features": None, "vector": spoilt.tobytes()}, "$.vector[1]"),
    ):
        rows = read(request(binary(0), Format.MSGPACK), request(least(2, **fields), Format.MSGPACK), request(by_name(1), Format.MSGPACK))
        assert set(rows.faults) == {1}
        assert (rows.faults[1].refused, rows.faults[1].reason.split(":")[0]) == (True, where)
        np.testing.assert_array_equal(rows.matrix[[0, 2]], VALUES[:2])


def test_binary_that_is_no_whole_number_of_floats_is_refused() -> None:
    rows = read(request(least(vector=b"12345", features=None), Format.MSGPACK), request(binary(1), Format.MSGPACK))
    assert rows.faults[0].refused
    np.testing.assert_array_equal(rows.matrix[1], VALUES[1])


@pytest.mark.parametrize("form", [Format.JSON, Format.MSGPACK])
def test_a_number_that_no_model_reads_need_not_fit_into_float32(form: Format) -> None:
    for neighbour in (by_name(1), by_name(1, b="x")):
        rows = read(request(by_name(0, d=1e300), form), request(neighbour, form))
        assert 0 not in rows.faults
        np.testing.assert_array_equal(rows.matrix[0], VALUES[0])


def test_a_name_with_escapes_is_measured_as_it_reads() -> None:
    assert read(raw(b'"features":{"a":1,"b":2,"c":3,"' + b"\\u0041" * 12 + b'":4}')).faults == {}
    for name in (b"\\u0041" * 13, b'\\"' * 13, b"A" * 13):
        assert "limit is 12" in read(raw(b'"features":{"a":1,"b":2,"c":3,"' + name + b'":4}')).faults[0].reason


def test_at_the_limits_of_features_a_request_is_read() -> None:
    assert read(raw(b'"features":{"a":1,"b":2,"c":3,"dddddddddddd":1,"e":1,"f":1}')).faults == {}
    assert not read(raw(b'"vector":[1,2,3,4,5,6]')).faults[0].refused


@pytest.mark.parametrize("vector", [[1.0, 2.0], [1.0, 2.0, 3.0, 4.0], []])
def test_a_vector_of_another_length_is_an_error_of_the_request_not_a_dead_letter(vector: list[float]) -> None:
    for value in (vector, np.array(vector, np.float32).tobytes()):
        form = Format.MSGPACK if isinstance(value, bytes) else Format.JSON
        rows = read(request(least(0, features=None, vector=value), form), request(by_name(1), form))
        assert (rows.faults[0].refused, rows.faults[0].reason) == (False, f"$.vector: it has {len(vector)} values, the model wants 3")
        np.testing.assert_array_equal(rows.matrix[1], VALUES[1])


def test_two_vectors_whose_lengths_make_up_for_each_other_are_both_found_out() -> None:
    rows = read(*(raw(vector) for vector in (b'"vector":[1,2]', b'"vector":[1,2,3,4]', b'"vector":[1,2,3]')))
    assert set(rows.faults) == {0, 1}
    np.testing.assert_array_equal(rows.matrix[2], [1, 2, 3])


def test_a_missing_feature_without_default_is_named() -> None:
    rows = read(raw(b'"features":{"a":1}'), request(by_name(1)), raw(b'"x":1'))
    assert not rows.faults[0].refused
    assert rows.faults[0].reason.startswith("$.features: 'b' and 1 more missing")
    assert rows.faults[2].reason.startswith("$.features: 'a' and 2 more missing")
    np.testing.assert_array_equal(rows.matrix[1], VALUES[1])


@pytest.mark.parametrize("form", [Format.JSON, Format.MSGPACK])
def test_a_default_stands_in_and_is_recorded_in_the_requests_own_encoding(form: Format) -> None:
    rows = read(request(least(features={"a": 1.5, "zzz": 9.0}), form), request(by_name(1), form), defaults={"b": 7.0, "c": 8.0})
    assert rows.faults == {}
    np.testing.assert_array_equal(rows.matrix, [[1.5, 7, 8], VALUES[1]])
    decode = msgspec.json.decode if form is Format.JSON else msgspec.msgpack.decode
    assert {i: decode(completed) for i, completed in rows.completed.items()} == {0: {"a": 1.5, "zzz": 9.0, "b": 7.0, "c": 8.0}}


def test_without_any_features_defaults_make_the_whole_row() -> None:
    rows = read(raw(b'"features":null'), raw(b'"x":0'), defaults={"a": 1.0, "b": 2.0, "c": 3.0})
    np.testing.assert_array_equal(rows.matrix, [[1, 2, 3], [1, 2, 3]])
    assert rows.completed.keys() == {0, 1}


def test_the_last_of_two_features_of_one_name_counts() -> None:
    np.testing.assert_array_equal(read(raw(b'"features":{"a":1,"b":2,"c":3,"a":4}')).matrix, [[4, 2, 3]])


def test_reading_alters_no_request() -> None:
    records = [request(by_name(0)), raw(b'"features":{"a":1}'), raw(b'"vector":[1]')]
    before = [msgspec.json.encode(record.event) for record in records]
    read(*records, defaults={"b": 1.0, "c": 1.0})
    assert [msgspec.json.encode(record.event) for record in records] == before

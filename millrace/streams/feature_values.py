"""The features of one request, read alone and slowly, so that whatever is wrong with them is named by its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct

from millrace.schemas.limits import Limits
from millrace.schemas.request import Request

FLOAT32_END = float(2**128 - 2**103)
"""The least number that rounds to infinity as a float32."""
NULLS = (b"null", b"\xc0")


class Form(Enum):
    """How a request states its features: encoding, and by name or as a vector."""

    NONE = "none"
    JSON_NAMES = "json names"
    JSON_VECTOR = "json vector"
    PACKED_NAMES = "msgpack names"
    PACKED_VECTOR = "msgpack vector"
    FLOAT32_VECTOR = "float32 vector"
    NOT_NAMES = "features that are no object"
    NOT_VECTOR = "vector that is no list"


_NAMES = {ord("{"): Form.JSON_NAMES} | dict.fromkeys([*range(0x80, 0x90), 0xDE, 0xDF], Form.PACKED_NAMES)
_VECTORS = (
    {ord("["): Form.JSON_VECTOR}
    | dict.fromkeys([*range(0x90, 0xA0), 0xDC, 0xDD], Form.PACKED_VECTOR)
    | dict.fromkeys([0xC4, 0xC5, 0xC6], Form.FLOAT32_VECTOR)
)


VECTOR_FORMS = (Form.JSON_VECTOR, Form.PACKED_VECTOR, Form.FLOAT32_VECTOR)


class Fault(Struct, frozen=True):
    """Why a request's features cannot be used. ``refused``: the payload is wrong in itself, whatever the model."""

    reason: str
    refused: bool = False


def stated(request: Request) -> tuple[Form, bytes]:
    """The form of a request's features, by their first byte, and their bytes."""
    raw = bytes(request.vector)
    if raw and raw not in NULLS:
        return _VECTORS.get(raw[0], Form.NOT_VECTOR), raw
    raw = bytes(request.features)
    if raw and raw not in NULLS:
        return _NAMES.get(raw[0], Form.NOT_NAMES), raw
    return Form.NONE, b""


def stated_of_all(requests: Sequence[Request]) -> tuple[list[Form], list[bytes]]:
    """``stated`` for many requests, quickly where all of them use one form."""
    raws, table = [bytes(request.vector) for request in requests], _VECTORS
    if not any(raws):
        raws, table = [bytes(request.features) for request in requests], _NAMES
    kinds = {raw[:1] for raw in raws}
    forms = {table.get(kind[0]) if kind else None for kind in kinds}
    if len(forms) == 1 and (form := forms.pop()) is not None:
        return [form] * len(raws), raws
    each = [stated(request) for request in requests]
    return [form for form, _ in each], [raw for _, raw in each]


def inspect(request: Request, limits: Limits) -> Fault | None:
    """What is wrong with the features of a request that no model will read, or None."""
    form, raw = stated(request)
    found = read_one(form, raw, limits)
    return found if isinstance(found, Fault) else None


def read_one(form: Form, raw: bytes, limits: Limits) -> dict[str, float] | list[float] | Fault:
    """The finite numbers of one request, by name or in order; or the fault, with its path in the payload."""
    match form:
        case Form.NONE:
            return {}
        case Form.JSON_NAMES | Form.PACKED_NAMES:
            return _names(form, raw, limits)
        case Form.JSON_VECTOR | Form.PACKED_VECTOR | Form.FLOAT32_VECTOR:
            return _vector(form, raw, limits)
        case Form.NOT_NAMES:
            return Fault("$.features: expected an object of numbers by name", refused=True)
        case Form.NOT_VECTOR:
            return Fault("$.vector: expected a list of numbers, or float32 in binary (MessagePack)", refused=True)


def _names(form: Form, raw: bytes, limits: Limits) -> dict[str, float] | Fault:
    values = _decode(form, raw, dict[str, Any])
    if isinstance(values, str):
        return Fault(f"$.features: {values}", refused=True)
    if len(values) > limits.features:
        return Fault(f"$.features: {len(values)} features, the limit is {limits.features}", refused=True)
    for name, value in values.items():
        if len(name) > limits.string_characters:
            return Fault(f"$.features: a name of {len(name)} characters, the limit is {limits.string_characters}", refused=True)
        if wrong := _wrong(value):
            return Fault(f"$.features[{name[:80]!r}]: {wrong}", refused=True)
    return {name: float(value) for name, value in values.items()}


def _vector(form: Form, raw: bytes, limits: Limits) -> list[float] | Fault:
    values = _floats(raw) if form is Form.FLOAT32_VECTOR else _decode(form, raw, list[Any])
    if isinstance(values, str):
        return Fault(f"$.vector: {values}", refused=True)
    if len(values) > limits.features:
        return Fault(f"$.vector: {len(values)} features, the limit is {limits.features}", refused=True)
    for i, value in enumerate(values):
        if wrong := _wrong(value):
            return Fault(f"$.vector[{i}]: {wrong}", refused=True)
    return [float(value) for value in values]


def _decode(form: Form, raw: bytes, wanted: Any) -> Any:
    """The decoded value, or a text that says why there is none."""
    decode = msgspec.json.decode if form in (Form.JSON_NAMES, Form.JSON_VECTOR) else msgspec.msgpack.decode
    try:
        return decode(raw, type=wanted)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return str(error)


def _floats(raw: bytes) -> list[float] | str:
    payload = msgspec.msgpack.decode(raw, type=bytes)
    if len(payload) % 4:
        return f"{len(payload)} bytes are no whole number of float32 values"
    values: list[float] = np.frombuffer(payload, "<f4").tolist()
    return values


def _wrong(value: object) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"expected a number, got {'null' if value is None else type(value).__name__}"
    try:
        return None if math.isfinite(value) else f"{value} is not a finite number"
    except OverflowError:
        return f"{value!r:.40} does not fit into a double"


def too_large(form: Form, names: Sequence[str], values: Sequence[float]) -> Fault | None:
    """The first of a model's finite features that no float32 holds."""
    for i, value in enumerate(values):
        if abs(value) >= FLOAT32_END:
            place = f"vector[{i}]" if form in VECTOR_FORMS else f"features[{names[i][:80]!r}]"
            return Fault(f"$.{place}: {value!r} does not fit into float32", refused=True)
    return None


def encode_names(form: Form, values: dict[str, float]) -> Raw:
    """Features by name in the encoding that a request used; JSON where it stated none."""
    packed = form in (Form.PACKED_NAMES, Form.PACKED_VECTOR, Form.FLOAT32_VECTOR)
    return Raw(msgspec.msgpack.encode(values) if packed else msgspec.json.encode(values))

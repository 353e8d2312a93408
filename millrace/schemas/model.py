"""A version of a model, and the route that says which versions serve."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from millrace.schemas.event import Event, Time
from millrace.schemas.experiment import Word

MAX_WEIGHT = 1e9
"""Sums of weights stay numbers: a route that overflows would stop every worker that reads it."""


class Output(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One named output of a prediction: the tensor it comes from and, where it is one column of it, which."""

    name: str
    tensor: str
    column: int | None = None


class Golden(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input row and what the model answered to it when it was added: a loaded model must agree."""

    vector: tuple[float, ...]
    outputs: dict[str, float | list[float]]


class ModelVersion(Event, frozen=True):
    """One version of a model: its manifest, and its bytes or where they are. The digest is the sha256 of the bytes."""

    name: Annotated[Word, Meta(description="The model.", extra={"low_cardinality": True})]
    version: Annotated[int, Meta(ge=1, description="Its version: 1, 2, 3 ...")]
    time: Annotated[Time, Meta(description="When it was added.")]
    digest: Annotated[str, Meta(description="sha256 of the model's bytes, in hex.")]
    size_bytes: Annotated[int, Meta(ge=1, description="The size of the model's bytes.")]
    input: Annotated[str, Meta(description="The input tensor, of shape (n, k), float32.")]
    features: Annotated[tuple[str, ...], Meta(min_length=1, description="The k features, in the order of the vector.")]
    outputs: Annotated[tuple[Output, ...], Meta(min_length=1, description="The named outputs of a prediction.")]
    operators: Annotated[tuple[str, ...], Meta(description="The ONNX operators it uses.")]
    golden: Annotated[Golden, Meta(description="One input and its answer, checked at every load.")]
    defaults: Annotated[dict[str, float], Meta(description="The value of a feature that a request leaves out.")] = {}
    data: Annotated[bytes, Meta(description="The model's bytes, where they fit into a record.")] = b""
    location: Annotated[str, Meta(description="The name of the bytes in the object store, where they do not.")] = ""


class Share(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version's share of a route, by weight."""

    version: Annotated[int, Meta(ge=1)]
    weight: Annotated[float, Meta(gt=0, le=MAX_WEIGHT)] = 1.0


class Route(Event, frozen=True):
    """Which versions of a model serve what share of its units, and which answer as shadows."""

    name: Annotated[Word, Meta(description="The model.", extra={"low_cardinality": True})]
    version: Annotated[int, Meta(ge=1, description="The route's own version.")]
    time: Annotated[Time, Meta(description="When it was set.")]
    shares: Annotated[tuple[Share, ...], Meta(min_length=1, description="The versions that serve, by weight.")]
    shadows: Annotated[tuple[int, ...], Meta(description="Versions that answer too, marked as shadows.")] = ()

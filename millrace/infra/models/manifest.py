"""Make a model's manifest from its bytes, for ``millrace models add``."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import onnx

from millrace.infra.models.graph import Graph, digest_of, examine
from millrace.infra.models.session import (
    Session,
    SessionSettings,
    check_output,
    check_signature,
    open_session,
    read_input,
    run_or_refuse,
    whole,
)
from millrace.schemas.errors import ModelRefused, UsageError
from millrace.schemas.model import Golden, ModelVersion, Output

METADATA_KEYS = ("features", "feature_names")
MODEL_BYTES = 256 << 20
UNNAMED = "unnamed"


def inspect(
    data: bytes,
    features: Sequence[str] | None = None,
    outputs: Sequence[Output] | None = None,
    limit_bytes: int = MODEL_BYTES,
) -> ModelVersion:
    """A manifest that these bytes agree with: version 1 of ``unnamed``, for the caller to give name, version, time and place.

    ``features`` default to the model's metadata (``features`` or ``feature_names``: a JSON list, or names with commas between), else f0,
    f1, ...; ``outputs`` default to every output tensor under its own name. The golden input is drawn with a fixed seed.
    Raises ModelRefused.
    """
    graph = examine(data, limit_bytes)
    _check_model(data)
    session = open_session(data, SessionSettings())
    name, width = read_input(session)
    manifest = ModelVersion(
        name=UNNAMED,
        version=1,
        time=datetime.fromtimestamp(0, UTC),
        digest=digest_of(data),
        size_bytes=len(data),
        input=name,
        features=_features(features, graph, width),
        outputs=tuple(outputs or _outputs(session)),
        operators=graph.operators,
        golden=Golden(vector=(), outputs={}),
    )
    _check_names(manifest)
    check_signature(session, manifest)
    complete = msgspec.structs.replace(manifest, golden=_golden(Session(session, manifest), len(manifest.features)))
    Session(session, complete).check()
    return complete


def parse_outputs(text: str) -> tuple[Output, ...]:
    """Outputs as written on a command line: ``tensor``, ``name=tensor`` or ``name=tensor:column``, with commas between.

    >>> parse_outputs("label,score=probabilities:1")[1].column
    1
    """
    return tuple(_parse_output(part.strip()) for part in text.split(","))


def _parse_output(text: str) -> Output:
    name, equals, tensor = text.partition("=")
    tensor, colon, column = (tensor if equals else name).partition(":")
    if not name or not tensor or (colon and not column.isdigit()):
        raise UsageError(f"--outputs: {text!r} is not `tensor`, `name=tensor` or `name=tensor:column`")
    return Output(name=name, tensor=tensor, column=int(column) if colon else None)


def _check_model(data: bytes) -> None:
    try:
        onnx.checker.check_model(data)
    except onnx.checker.ValidationError as error:
        raise ModelRefused(f"the model is not valid ONNX: {error}"[:1_000]) from None


def _features(given: Sequence[str] | None, graph: Graph, width: int | None) -> tuple[str, ...]:
    named = tuple(given) if given else _from_metadata(graph)
    if not named and width is None:
        raise ModelRefused("the model does not say how many features it takes; name them with --features a,b,c")
    names = named or tuple(f"f{i}" for i in range(width or 0))
    if width is not None and len(names) != width:
        raise ModelRefused(f"the model takes {width} features, {len(names)} are named")
    return names


def _from_metadata(graph: Graph) -> tuple[str, ...]:
    text = next((graph.metadata[key] for key in METADATA_KEYS if graph.metadata.get(key)), "")
    try:
        names: Any = json.loads(text) if text.lstrip().startswith("[") else [part.strip() for part in text.split(",") if part.strip()]
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelRefused("the model's metadata names its features in no way that can be read; name them with --features a,b,c")
    return tuple(names)


def _check_names(manifest: ModelVersion) -> None:
    for what, names in (("feature", manifest.features), ("output", tuple(output.name for output in manifest.outputs))):
        if not names:
            raise ModelRefused(f"the model has no {what}")
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None or "" in names:
            raise ModelRefused(f"the {what} {twice or ''!r} is {'named twice' if twice else 'empty'}; every {what} needs a name of its own")


def _outputs(session: Any) -> list[Output]:
    outputs = []
    for node in session.get_outputs():
        check_output(node)
        outputs.append(whole(node.name, node.shape[1] if len(node.shape) == 2 and isinstance(node.shape[1], int) else None))
    return outputs


def _golden(model: Session, width: int) -> Golden:
    """The first of a few inputs that has a finite answer."""
    drawn = np.random.default_rng(20_240_601).standard_normal(width).astype(np.float32)
    for row in (drawn, np.zeros(width, np.float32), np.ones(width, np.float32)):
        answer = {name: column[0].tolist() for name, column in run_or_refuse(model, row[np.newaxis]).items()}
        if all(map(math.isfinite, _flat(answer))):
            return Golden(vector=tuple(row.tolist()), outputs=answer)
    raise ModelRefused("the model answers none of three inputs (drawn, zeros, ones) with finite numbers")


def _flat(answer: dict[str, Any]) -> list[float]:
    return [number for value in answer.values() for number in (value if isinstance(value, list) else [value])]

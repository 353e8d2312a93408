"""What a model file may hold: one self-contained ONNX graph of standard operators, examined before anything runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct

from millrace.schemas.errors import ModelRefused

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
HINTS = {
    "ZipMap": "its output is a list of maps, not a tensor; convert the classifier again with "
    "`skl2onnx.to_onnx(..., options={'zipmap': False})`",
}


class Graph(Struct, frozen=True):
    """What was found in a model file: its operators, as ``Gemm`` or ``ai.onnx.ml.Scaler``, and its metadata."""

    operators: tuple[str, ...]
    metadata: dict[str, str]


def digest_of(data: bytes) -> str:
    """The sha256 of a model's bytes, in hex: its name wherever it goes."""
    return hashlib.sha256(data).hexdigest()


def examine(data: bytes, limit_bytes: int) -> Graph:
    """Walk the whole file: graph, subgraphs and functions. Raises ModelRefused saying what is not allowed.

    Tensors kept outside of the file are refused before any path is looked at: a path, a link or an address in a model would be
    read with this process's rights.
    """
    if len(data) > limit_bytes:
        raise ModelRefused(f"the model has {len(data)} bytes, the limit is {limit_bytes} (inference.model_bytes)")
    model = _parse(data)
    functions = {(function.domain, function.name) for function in model.functions}
    found: set[str] = set()
    for node in _nodes(model):
        if (node.domain, node.op_type) not in functions:
            found.add(_operator(node))
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ModelRefused(f"the tensor {tensor.name!r} is kept outside of the file; save the model with all its data inside")
    return Graph(tuple(sorted(found)), {entry.key: entry.value for entry in model.metadata_props})


def _parse(data: bytes) -> Any:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise ModelRefused(f"this is not an ONNX model: {error}") from None
    if not model.graph.node:
        raise ModelRefused("this is not an ONNX model with a graph: no operator was found")
    if model.training_info:
        raise ModelRefused("the model holds training information; export it for inference")
    return model


def _operator(node: Any) -> str:
    """An operator's name. Raises ModelRefused for one that is not standard, or whose answer is drawn by lot."""
    name = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)
    if hint := HINTS.get(node.op_type):
        raise ModelRefused(f"operator {name}: {hint}")
    if node.domain not in DOMAINS or not onnx.defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
        raise ModelRefused(f"operator {name} is not of standard ONNX ({', '.join(sorted(DOMAINS - {''}))}); export the model without it")
    if node.op_type in RANDOM:
        raise ModelRefused(f"operator {name} draws random numbers: the same request would not be answered the same")
    return name


def _bodies(model: Any) -> Iterator[Any]:
    """Everything that has nodes: the graph and the functions; subgraphs are found through their nodes."""
    yield model.graph
    yield from model.functions


def _nodes(model: Any) -> Iterator[Any]:
    pending = list(_bodies(model))
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending += _graphs(attribute)


def _graphs(attribute: Any) -> list[Any]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor in the file: initializers, sparse ones, and those in the attributes of nodes and functions, at any depth."""
    graphs = [model.graph]
    for node in _nodes(model):
        for attribute in node.attribute:
            graphs += _graphs(attribute)
        yield from _of_attributes(node.attribute)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto)
    for graph in graphs:
        yield from graph.initializer
        yield from _of_sparse(graph.sparse_initializer)


def _of_attributes(attributes: Iterable[Any]) -> Iterator[Any]:
    for attribute in attributes:
        yield attribute.t
        yield from attribute.tensors
        yield from _of_sparse([attribute.sparse_tensor, *attribute.sparse_tensors])


def _of_sparse(tensors: Iterable[Any]) -> Iterator[Any]:
    for tensor in tensors:
        yield tensor.values
        yield tensor.indices

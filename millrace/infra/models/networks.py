"""Small seeded networks as ONNX bytes: what benchmarks and tests run in place of somebody's model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9


def perceptron(sizes: Sequence[int], seed: int = 0, output: str = "score") -> bytes:
    """A multi-layer perceptron with ReLU between its layers: ``features`` (n, sizes[0]) to ``output`` (n, sizes[-1])."""
    rng = np.random.default_rng(seed)
    nodes: list[Any] = []
    weights: list[Any] = []
    last = len(sizes) - 2
    value = "features"
    for i, (width, height) in enumerate(pairwise(sizes)):
        matrix = (rng.standard_normal((width, height)) / np.sqrt(width)).astype(np.float32)
        weights += [numpy_helper.from_array(matrix, f"w{i}"), numpy_helper.from_array(np.zeros(height, np.float32), f"b{i}")]
        product = output if i == last else f"product{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [product]))
        if i != last:
            nodes.append(helper.make_node("Relu", [product], [f"hidden{i}"]))
        value = f"hidden{i}"
    return model(nodes, {"features": sizes[0]}, {output: sizes[-1]}, weights)


def model(nodes: Sequence[Any], inputs: dict[str, int], outputs: dict[str, int], weights: Sequence[Any] = ()) -> bytes:
    """ONNX bytes of a graph over float32 tensors of shape (n, width)."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in outputs.items()],
        list(weights),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    data: bytes = made.SerializeToString()
    return data

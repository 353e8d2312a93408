"""One model version in memory: an onnxruntime session that agrees with its manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
from msgspec import Struct
from numpy.typing import NDArray

from millrace.schemas.errors import ModelRefused, SettingsError
from millrace.schemas.model import ModelVersion, Output

RELATIVE_TOLERANCE = 1e-4
ABSOLUTE_TOLERANCE = 1e-5
NUMBERS = frozenset({"tensor(float)", "tensor(double)", "tensor(float16)", "tensor(bool)"}) | {
    f"tensor({sign}int{bits})" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
WARM_ROWS = (1, 2, 256)

Matrix = NDArray[np.float32]
Columns = dict[str, NDArray[Any]]
Timed = Callable[[int, float], None]


class SessionSettings(Struct, frozen=True):
    """How onnxruntime runs: threads within an operator, and where (``CPUExecutionProvider``, ...), the first one that can do it."""

    intra_op_threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)


def open_session(data: bytes, settings: SessionSettings) -> Any:
    """A session over these bytes alone. Raises ModelRefused where onnxruntime cannot use them, SettingsError for an unknown provider."""
    check_providers(settings.providers)
    try:
        session = onnxruntime.InferenceSession(data, _options(settings), providers=list(settings.providers))
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base but this
        raise ModelRefused(f"onnxruntime cannot load the model: {error}"[:1_000]) from None
    missing = [name for name in settings.providers if name not in session.get_providers()]
    if missing:
        raise SettingsError(
            f"inference.providers: {missing[0]} could not be started on this machine; see onnxruntime's log, or leave it out"
        )
    return session


def check_providers(providers: Sequence[str]) -> None:
    """Raise SettingsError for an execution provider that this build of onnxruntime does not have."""
    available = onnxruntime.get_available_providers()
    unknown = [name for name in providers if name not in available]
    if unknown:
        raise SettingsError(
            f"inference.providers: {unknown[0]!r} is not in this build of onnxruntime (it has {', '.join(available)}); "
            "install the build that has it, or leave it out"
        )


def _options(settings: SessionSettings) -> Any:
    """Made for few cores: no spinning threads, no memory plan kept for every batch size ever seen."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.intra_op_threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


class Session:
    """A session and the outputs that its manifest names. ``timed(rows, seconds)``, where set, is told of every run."""

    def __init__(self, session: Any, manifest: ModelVersion) -> None:
        self.manifest = manifest
        self.timed: Timed | None = None
        self._session = session
        self._run = session.run
        self._tensors = sorted({output.tensor for output in manifest.outputs})
        self._plan = [(output.name, self._tensors.index(output.tensor), output.column) for output in manifest.outputs]

    def run(self, matrix: Matrix) -> Columns:
        """The named outputs of float32 rows (n, k): each (n,) or (n, m), as floats. Raises what onnxruntime raises."""
        began = time.perf_counter()
        tensors = self._run(self._tensors, {self.manifest.input: matrix})
        if self.timed is not None:
            self.timed(len(matrix), time.perf_counter() - began)
        return {name: _column(tensors[at], column, len(matrix), name) for name, at, column in self._plan}

    def check(self) -> None:
        """Raise ModelRefused where the graph or its answer to the golden input is not what the manifest says. Warms the session."""
        check_signature(self._session, self.manifest)
        check_golden(self)


def _column(tensor: Any, column: int | None, rows: int, name: str) -> NDArray[Any]:
    if tensor.ndim not in (1, 2) or tensor.shape[0] != rows:
        raise ModelRefused(f"output {name!r} has the shape {tensor.shape} for {rows} rows; it must be (n,) or (n, m)")
    if tensor.dtype != np.float32:
        tensor = tensor.astype(np.float64)
    if column is None:
        return tensor  # type: ignore[no-any-return]
    if tensor.ndim != 2 or column >= tensor.shape[1]:
        raise ModelRefused(f"output {name!r} is column {column} of a tensor of shape {tensor.shape}")
    return tensor[:, column]  # type: ignore[no-any-return]


def check_signature(session: Any, manifest: ModelVersion) -> None:
    """Raise ModelRefused where the graph's inputs and outputs are not what the manifest says."""
    name, width = read_input(session)
    if name != manifest.input:
        raise ModelRefused(f"the model's input is {name!r}, the manifest says {manifest.input!r}")
    if width is not None and width != len(manifest.features):
        raise ModelRefused(f"the model takes {width} features, the manifest names {len(manifest.features)}")
    known = {node.name: node for node in session.get_outputs()}
    for output in manifest.outputs:
        if output.tensor not in known:
            raise ModelRefused(f"output {output.name!r}: the model has no tensor {output.tensor!r}; it has {', '.join(known)}")
        check_output(known[output.tensor])


def read_input(session: Any) -> tuple[str, int | None]:
    """The name of the one input and its number of features, None where the graph leaves it open. Raises ModelRefused."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise ModelRefused(f"the model has {len(inputs)} inputs ({names}); it must have one, float32 of shape (n, features)")
    node = inputs[0]
    if node.type != "tensor(float)":
        raise ModelRefused(f"the input {node.name!r} is {node.type}; export it with a float32 input (skl2onnx: FloatTensorType)")
    if len(node.shape) != 2:
        raise ModelRefused(f"the input {node.name!r} has the shape {node.shape}; it must be (n, features)")
    if isinstance(node.shape[0], int):
        raise ModelRefused(f"the input {node.name!r} has a fixed batch size of {node.shape[0]}; export it with a dynamic first axis")
    return node.name, node.shape[1] if isinstance(node.shape[1], int) else None


def check_output(node: Any) -> None:
    """Raise ModelRefused for an output that is no tensor of numbers."""
    if node.type not in NUMBERS:
        hint = " (number the classes before training, or choose other outputs)" if node.type == "tensor(string)" else ""
        raise ModelRefused(f"the output {node.name!r} is {node.type}, not a tensor of numbers{hint}")


def check_golden(model: Session) -> None:
    """Run the golden input alone and among other rows, which also warms the session. Raises ModelRefused where the answer is another.

    A model that mixes the rows of a batch cannot be run in micro-batches: its answer would depend on who asked at the same time.
    """
    row = np.asarray([model.manifest.golden.vector], np.float32)
    if row.shape[1] != len(model.manifest.features):
        raise ModelRefused(f"the golden input has {row.shape[1]} values for {len(model.manifest.features)} features")
    for rows in WARM_ROWS:
        batch = np.repeat(row, rows, axis=0)
        batch[1:] *= -0.5
        answer = run_or_refuse(model, batch)
        for name, expected in model.manifest.golden.outputs.items():
            if name not in answer or not _close(answer[name][0], expected):
                got = answer[name][0].tolist() if name in answer else "nothing"
                raise ModelRefused(f"golden input: output {name!r} is {got} in a batch of {rows}, the manifest says {expected}")


def run_or_refuse(model: Session, matrix: Matrix) -> Columns:
    """The outputs of a first run; whatever it raises is a reason to refuse the model."""
    try:
        return model.run(matrix)
    except ModelRefused:
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base but this
        raise ModelRefused(f"the model cannot be run on {matrix.shape[0]} rows: {error}"[:1_000]) from None


def _close(value: Any, expected: float | list[float]) -> bool:
    wanted = np.asarray(expected, np.float64)
    if np.shape(value) != wanted.shape:
        return False
    return bool(np.allclose(value, wanted, rtol=RELATIVE_TOLERANCE, atol=ABSOLUTE_TOLERANCE))


def whole(tensor: str, columns: int | None) -> Output:
    """The output that a tensor is where nothing else was said: a number if it has one column, else a list."""
    return Output(name=tensor, tensor=tensor, column=0 if columns == 1 else None)

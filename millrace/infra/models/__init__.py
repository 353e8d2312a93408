"""Where models live: ONNX bytes examined, loaded by onnxruntime, and kept ready by version."""

from millrace.infra.models.manifest import inspect, parse_outputs
from millrace.infra.models.place import OnnxModels

__all__ = ["OnnxModels", "inspect", "parse_outputs"]

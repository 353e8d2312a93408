"""Do the settings of inference reach what they are to change?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from millrace.infra.settings import TelemetrySettings, convert
from millrace.infra.telemetry import Telemetry
from millrace.schemas.errors import SettingsError
from millrace.streams.answer import Keep
from millrace.streams.step import Batch
from millrace.workers.inference import Inference, gather_seconds, step_settings
from millrace.workers.stack.roles import WORKERS
from tests.models import NOW, MemoryModels, least, request

TREE = {
    "limits": {"features": 5},
    "inference": {
        "batch_records": 7,
        "features_recorded": "hash",
        "models": {"a": {"batch_records": 3, "wait_seconds": 0.05, "features_recorded": "0.25"}, "b": {"wait_seconds": 0.02}},
    },
}


def test_limits_batch_sizes_and_recording_reach_the_step() -> None:
    settings = step_settings(convert(TREE))
    assert (settings.limits.features, settings.batch_records, settings.batch_records_of) == (5, 7, {"a": 3})
    assert settings.recording.keep is Keep.HASH
    assert (settings.recording_of["a"].keep, settings.recording_of["a"].ratio) == (Keep.SAMPLE, 0.25)
    assert settings.recording_of.keys() == {"a"}


def test_a_poll_gathers_as_long_as_the_most_patient_model_waits() -> None:
    assert gather_seconds(convert(TREE)) == 0.05
    assert gather_seconds(convert({"inference": {"wait_seconds": 0.1}})) == 0.1
    assert gather_seconds(convert({"runner": {"gather_seconds": 0.2}, **TREE})) == 0.2
    assert gather_seconds(convert({})) == 0.005


def test_models_that_nobody_serves_share_one_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millrace.workers.inference.OnnxModels", lambda *_: MemoryModels())
    telemetry = Telemetry("inference", "inference-0", TelemetrySettings())
    step = Inference(convert({}), telemetry)
    step.process(Batch(0, [request(least(i, model=f"m{i}")) for i in range(100)], NOW))
    samples = [sample for metric in telemetry.metrics.registry.collect() for sample in metric.samples if "model" in sample.labels]
    assert {(sample.labels["model"], sample.labels["status"]) for sample in samples} == {("", "error")}


def test_an_unknown_way_of_recording_is_refused_at_the_start() -> None:
    with pytest.raises(SettingsError, match="features_recorded"):
        step_settings(convert({"inference": {"models": {"a": {"features_recorded": "most"}}}}))


@pytest.mark.parametrize("role", WORKERS)
def test_a_worker_refuses_unknown_settings_so_that_nobody_starts_it_again(role: str) -> None:
    command = [sys.executable, "-m", f"millrace.workers.{role}"]
    done = subprocess.run(command, env=os.environ | {"MILLRACE_RUNNER__POLL": "1"}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "unknown field `poll`" in done.stderr

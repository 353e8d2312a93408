"""Inference: requests in, assignments and predictions out, in one transaction."""

from __future__ import annotations

from collections import Counter

from millrace.infra.models import OnnxModels
from millrace.infra.objects import Folder
from millrace.infra.settings import InferenceSettings, Settings
from millrace.infra.telemetry import Answered, ModelFailed, Telemetry
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.record import Emit
from millrace.schemas.topics import EXPERIMENTS, MODELS, POLICIES, PREDICTIONS, READERS, ROUTES
from millrace.streams.answer import Recording
from millrace.streams.fleet import Models
from millrace.streams.microbatch import BLAMED
from millrace.streams.predict import Decide, DecideSettings, Fact
from millrace.streams.step import Batch, Store
from millrace.workers.process import main
from millrace.workers.runner import Runner, Work

ROLE = "inference"


class Inference(Decide):
    """The step, told of in metrics."""

    def __init__(self, settings: Settings, telemetry: Telemetry, models: Models | None = None) -> None:
        super().__init__(models or models_of(settings, telemetry), step_settings(settings))
        self._telemetry = telemetry

    def process(self, batch: Batch, store: Store | None = None) -> list[Fact]:
        """As ``Decide``."""
        facts = super().process(batch, store)
        predictions = [fact.event for fact in facts if isinstance(fact, Emit) and fact.topic == PREDICTIONS.name]
        others = [one for one in predictions if one.status is not Status.OK]
        good = Counter([one.model for one in predictions])
        good.subtract([one.model for one in others])
        counts = Counter({(model, Status.OK.value): number for model, number in good.items() if number})
        counts.update((self._label(one.model), one.status.value) for one in others)
        self._telemetry.emit(Answered(counts))
        if others:
            self._tell_failures(others)
        return facts

    def _label(self, model: str) -> str:
        """A model that nobody added counts under no name: producers write what they like, and a series is kept for ever."""
        return model if self._fleet.knows(model) else ""

    def _tell_failures(self, predictions: list[Prediction]) -> None:
        blamed = [one for one in predictions if one.error.startswith(BLAMED)]
        for (model, version), number in Counter([(one.model, one.version) for one in blamed]).items():
            reason = next(one.error for one in blamed if (one.model, one.version) == (model, version))
            self._telemetry.emit(ModelFailed(model=model, version=version, records=number, reason=reason))


def step_settings(settings: Settings) -> DecideSettings:
    """What the step is to know of the settings."""
    inference = settings.inference
    own = inference.models.items()
    return DecideSettings(
        limits=settings.limits,
        batch_records=inference.batch_records,
        recording=Recording.parse(inference.features_recorded),
        batch_records_of={name: model.batch_records for name, model in own if model.batch_records},
        recording_of={name: Recording.parse(model.features_recorded) for name, model in own if model.features_recorded},
    )


def gather_seconds(settings: Settings) -> float:
    """How long a poll gathers: as every worker's, or longer where a model is to wait for a fuller batch."""
    return max(settings.runner.gather_seconds, longest_wait_seconds(settings.inference))


def longest_wait_seconds(inference: InferenceSettings) -> float:
    """A poll is one transaction and nothing is carried over, so the longest wait of any model is the wait of all."""
    own = [model.wait_seconds for model in inference.models.values() if model.wait_seconds is not None]
    return max([inference.wait_seconds, *own])


def models_of(settings: Settings, telemetry: Telemetry) -> OnnxModels:
    """Where this worker loads models."""
    return OnnxModels(settings.inference, Folder(settings.objects_folder), telemetry)


def work(settings: Settings, telemetry: Telemetry, models: Models | None = None) -> Work:
    """What this worker does, with its own place of models or another."""
    return Work(
        role=ROLE,
        inputs=READERS[ROLE],
        controls=(EXPERIMENTS, POLICIES, MODELS, ROUTES),
        step=Inference(settings, telemetry, models),
        stateless=True,
        gather_seconds=gather_seconds(settings),
    )


if __name__ == "__main__":
    main(ROLE, lambda settings, telemetry: Runner(work(settings, telemetry), settings, telemetry))

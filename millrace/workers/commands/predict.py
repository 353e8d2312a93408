"""``millrace predict``: ask for one decision as an outside producer would, and wait for the committed answer."""

from __future__ import annotations

import json as jsonlib
import time
import uuid
from typing import Annotated, Any

import msgspec
import typer

from millrace.infra.kafka.publish import Outgoing, publish
from millrace.infra.kafka.tail import From, Spot, Tail
from millrace.infra.settings import Settings
from millrace.schemas.errors import DecodeError, MillraceError, UsageError
from millrace.schemas.prediction import Prediction, Status
from millrace.schemas.topics import PREDICTIONS, REQUESTS
from millrace.schemas.wire import codec
from millrace.workers.commands.common import EXIT_PROBLEMS, Data, Json, write_json
from millrace.workers.commands.report import kafka_settings, say

Model = Annotated[str, typer.Argument(help="The model's name.")]
Features = Annotated[str | None, typer.Option("--features", help="Features by name: a JSON object of numbers.")]
Vector = Annotated[str | None, typer.Option("--vector", help="Features in the model's order: a JSON array of numbers.")]
Unit = Annotated[str, typer.Option("--unit", help="The unit that the decision is about.")]
Context = Annotated[str | None, typer.Option("--context", help="What experiments target by: a JSON object.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.1, help="How many seconds to wait for the answer.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(predict)


def predict(
    model: Model,
    features: Features = None,
    vector: Vector = None,
    unit: Unit = "unit-1",
    context: Context = None,
    timeout: Timeout = 10.0,
    data: Data = None,
    json: Json = False,
) -> None:
    """Publish a request, wait for its prediction and print it. Exit code 1: no answer in time, or an answer without output."""
    request = _request(model, unit, {"features": features, "vector": vector, "context": context})
    answer = ask(kafka_settings(data), request, timeout)
    if json:
        write_json(answer)
    else:
        _print(answer)
    if answer.status is not Status.OK:
        raise typer.Exit(EXIT_PROBLEMS)


def ask(settings: Settings, request: dict[str, Any], timeout_seconds: float) -> Prediction:
    """Publish one request and give its committed answer (no shadow's). Raises MillraceError after the timeout."""
    value = msgspec.json.encode(request)
    _check(value)
    watched = Tail(settings, PREDICTIONS.name, Spot(place=From.LATEST))
    try:
        began = time.monotonic()
        publish(settings, [Outgoing(REQUESTS.name, request["unit_id"].encode(), value)])
        for record in watched.for_seconds(timeout_seconds - (time.monotonic() - began)):
            answer: Prediction = codec(PREDICTIONS).decode(record.value, record.headers)
            if answer.request_id == request["id"] and not answer.shadow:
                return answer
    finally:
        watched.close()
    raise MillraceError(
        f"request {request['id']} was published, but not answered within {timeout_seconds:g} s. See `millrace status`,"
        " `millrace models list` and `millrace dead-letters list`."
    )


def _request(model: str, unit: str, parts: dict[str, str | None]) -> dict[str, Any]:
    if (parts["features"] is None) is (parts["vector"] is None):
        raise UsageError("give the features either by name, --features '{\"a\": 1}', or in the model's order, --vector '[1]'")
    given = {name: _parsed(name, text) for name, text in parts.items() if text is not None}
    _check_numbers(given)
    return {"id": uuid.uuid4().hex, "unit_id": unit, "model": model, **given}


def _check_numbers(given: dict[str, Any]) -> None:
    """Features are numbers: a worker would dead-letter others, and nobody would answer."""
    features = given.get("features", {})
    if not isinstance(features, dict):
        raise UsageError(f"--features is no JSON object: {jsonlib.dumps(features)}")
    for name, value in features.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"--features: {name!r} is no number: {jsonlib.dumps(value)}")


def _parsed(name: str, text: str) -> Any:
    try:
        return jsonlib.loads(text)
    except ValueError as error:
        raise UsageError(f"--{name} is not JSON: {error}") from None


def _check(value: bytes) -> None:
    try:
        codec(REQUESTS).decode(value)
    except DecodeError as error:
        raise UsageError(f"this is no request: {error}") from None


def _print(answer: Prediction) -> None:
    say(f"{answer.model} version {answer.version}: {answer.status}" + (f", {answer.error}" if answer.error else ""))
    for name, value in answer.outputs.items():
        say(f"  {name} = {msgspec.json.encode(value).decode()}")
    say(f"request {answer.request_id}, taken up after {answer.latency_seconds * 1_000:.1f} ms")

"""``millrace models``: add a version of a model, and say which versions serve."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.kafka.control import Control
from millrace.infra.objects import Folder
from millrace.infra.settings import Settings
from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Word
from millrace.schemas.model import MAX_WEIGHT, ModelVersion, Route, Share
from millrace.schemas.topics import MODELS, ROUTES
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.report import cut, kafka_settings, say, show, when

INLINE_BYTES = 900_000
"""Up to here a model's bytes travel in its record; above it they go to the object store."""

Name = Annotated[str, typer.Argument(help="The model's name.")]
File = Annotated[Path, typer.Argument(help="A self-contained ONNX file with one float32 input of shape (n, features).")]
Features = Annotated[str | None, typer.Option("--features", help="The features in the input's order: a,b,c.")]
Outputs = Annotated[str | None, typer.Option("--outputs", help="tensor, name=tensor or name=tensor:column, with commas between.")]
Defaults = Annotated[str | None, typer.Option("--defaults", help="Values of features that a request may leave out: a=0,b=1.5.")]
Version = Annotated[int, typer.Argument(min=1, help="The version that serves.")]
Shadows = Annotated[list[int] | None, typer.Option("--shadow", min=1, help="A version that answers too, marked as a shadow.")]
Shares = Annotated[
    list[str] | None,
    typer.Option("--share", help="V=W: version V serves with weight W. VERSION has the rest of 1, or its own --share."),
]
COLUMNS = ("name", "version", "serves", "features", "outputs", "bytes", "added", "digest")

group = typer.Typer(name="models", help="Add models, and say which versions serve.", no_args_is_help=True)


class Added(Struct, frozen=True):
    """A version that was added, and its route where the model had none before."""

    model: ModelVersion
    route: Route | None


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group.command()(add)
    group.command("list")(list_models)
    group.command("show")(show_model)
    group.command()(route)
    app.add_typer(group)


def add(
    name: Name,
    file: File,
    features: Features = None,
    outputs: Outputs = None,
    defaults: Defaults = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Add a version of a model. The first version of a name serves at once; a later one when `millrace models route` says so."""
    added = add_model(kafka_settings(data), name, manifest(_bytes(file), features, outputs, defaults))
    if json:
        write_json(_document(added.model) | {"routed": added.route is not None})
        return
    model = added.model
    say(f"{model.name} version {model.version}: {len(model.features)} features, outputs {', '.join(out.name for out in model.outputs)}")
    say("it serves all requests" if added.route else f"it does not serve yet: millrace models route {model.name} {model.version}")


def add_model(settings: Settings, name: str, found: tuple[ModelVersion, bytes]) -> Added:
    """Publish the next version of a model and, where it is the first, its route."""
    _check_name(name)
    wanted, data = found
    kept = {"data": data} if len(data) <= INLINE_BYTES else {"location": Folder(settings.objects_folder).put(data)}
    models: Control[ModelVersion] = Control(settings, MODELS)
    model = models.append(name, lambda version: replace(wanted, name=name, version=version, time=datetime.now(UTC), **kept))
    routes: Control[Route] = Control(settings, ROUTES)
    if routes.versions.newest(name) is not None:
        return Added(model, None)
    return Added(model, routes.append(name, lambda number: _route(name, number, (Share(version=model.version),), ())))


def manifest(
    data: bytes, features: str | None = None, outputs: str | None = None, defaults: str | None = None
) -> tuple[ModelVersion, bytes]:
    """What a model's bytes say of themselves, with what the command line adds. Raises ModelRefused or UsageError."""
    from millrace.infra.models.manifest import inspect, parse_outputs

    found = inspect(data, _names(features), parse_outputs(outputs) if outputs else None)
    return replace(found, defaults=_defaults(defaults, found.features)), data


def list_models(data: Data = None, json: Json = False) -> None:
    """Every version of every model, and what share of it serves."""
    settings = kafka_settings(data)
    models: Control[ModelVersion] = Control(settings, MODELS)
    routes: Control[Route] = Control(settings, ROUTES)
    found = [model for name in sorted({model.name for model in models.versions}) for model in models.of(name)]
    serving = {(route.name, version): part for route in routes.versions for version, part in _parts(route).items()}
    documents = [_document(model) | {"serves": serving.get((model.name, model.version), "-")} for model in found]
    show(
        documents, [_row(document) for document in documents], COLUMNS, json, "no models yet: `millrace models add NAME FILE.onnx` adds one"
    )


def show_model(name: Name, data: Data = None, json: Json = False) -> None:
    """One model: its newest version's manifest, its versions and its routes."""
    settings = kafka_settings(data)
    models: Control[ModelVersion] = Control(settings, MODELS)
    routes: Control[Route] = Control(settings, ROUTES)
    newest = _known(models, name)
    document = {
        "name": name,
        "versions": [_document(model) for model in models.of(name)],
        "routes": msgspec.to_builtins(routes.of(name)),
    }
    if json:
        write_json(document)
        return
    for key, value in _readable(newest).items():
        say(f"{key:>10}  {cut(value)}")
    for step in routes.of(name):
        say(f"{'route':>10}  version {step.version}, {when(step.time)}: " + ", ".join(f"{v} {part}" for v, part in _parts(step).items()))


def route(name: Name, version: Version, shadow: Shadows = None, share: Shares = None, data: Data = None, json: Json = False) -> None:
    """Say which versions of a model serve: one alone, or several by weight (`route m 2 --share 3=0.1`), and which shadow them."""
    settings = kafka_settings(data)
    models: Control[ModelVersion] = Control(settings, MODELS)
    _known(models, name)
    shares, shadows = _shares(version, share or []), tuple(sorted(set(shadow or [])))
    _check_versions({model.version for model in models.of(name)}, name, [*(part.version for part in shares), *shadows])
    routes: Control[Route] = Control(settings, ROUTES)
    made = routes.append(name, lambda number: _route(name, number, shares, shadows))
    if json:
        write_json(made)
    else:
        say(f"{name}, route version {made.version}: " + ", ".join(f"{v} {part}" for v, part in _parts(made).items()))


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from None


def _names(features: str | None) -> list[str] | None:
    return [name.strip() for name in features.split(",")] if features else None


def _defaults(text: str | None, features: tuple[str, ...]) -> dict[str, float]:
    """``a=0,b=1.5`` as values of features."""
    found: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, value = part.partition("=")
        if name.strip() not in features:
            raise UsageError(f"--defaults names {name.strip()!r}, which is none of the model's features: {', '.join(features)}")
        found[name.strip()] = _number(value, part)
    return found


def _number(text: str, where: str) -> float:
    """A finite number; raises UsageError."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise UsageError(f"{where!r}: {text!r} is no finite number")
    return value


def _check_name(name: str) -> None:
    try:
        msgspec.convert(name, Word)
    except msgspec.ValidationError:
        raise UsageError(f"{name!r} cannot be a model's name: letters, digits, dot, dash and underscore, 128 at most") from None


def _known(models: Control[ModelVersion], name: str) -> ModelVersion:
    newest = models.versions.newest(name)
    if newest is None:
        known = ", ".join(model.name for model in models.versions) or "none yet"
        raise UsageError(f"no model is called {name!r}; there are: {known}")
    return newest


def _check_versions(known: set[int], name: str, wanted: list[int]) -> None:
    for version in wanted:
        if version not in known:
            raise UsageError(f"model {name} has no version {version}; it has {', '.join(map(str, sorted(known)))}")


def _shares(version: int, given: list[str]) -> tuple[Share, ...]:
    """The shares of a route; ``version`` has what the others leave of 1, unless it is given a weight itself."""
    weights: dict[int, float] = {}
    for part in given:
        number, equals, weight = part.partition("=")
        if not equals or not number.strip().isdecimal() or int(number) < 1 or int(number) in weights:
            raise UsageError(f"--share {part!r}: write VERSION=WEIGHT, each version once, as in --share 3=0.1")
        weights[int(number)] = _number(weight, f"--share {part}")
    if version not in weights:
        weights[version] = 1 - sum(weights.values())
    for serving, its_weight in weights.items():
        if its_weight > MAX_WEIGHT:
            raise UsageError(f"version {serving} has weight {its_weight:g}: at most {MAX_WEIGHT:g}")
        if its_weight <= 0:
            raise UsageError(f"version {serving} would have weight {its_weight:g}, which must be above 0; name VERSION's own with --share")
    return tuple(Share(version=serving, weight=its_weight) for serving, its_weight in sorted(weights.items()))


def _route(name: str, number: int, shares: tuple[Share, ...], shadows: tuple[int, ...]) -> Route:
    return Route(name=name, version=number, time=datetime.now(UTC), shares=shares, shadows=shadows)


def _parts(route: Route) -> dict[int, str]:
    """Version to what it does, for reading: its share, or that it is a shadow."""
    total = sum(share.weight for share in route.shares)
    return dict.fromkeys(route.shadows, "shadow") | {share.version: f"{share.weight / total:.0%}" for share in route.shares}


def _document(model: ModelVersion) -> dict[str, Any]:
    """The manifest without the bytes."""
    document: dict[str, Any] = msgspec.to_builtins(replace(model, data=b""), builtin_types=(datetime,))
    return document | {"location": model.location or "in the record"}


def _readable(model: ModelVersion) -> dict[str, str]:
    """The manifest as a person reads it; the golden input is left to --json."""
    return {
        "name": model.name,
        "version": str(model.version),
        "added": when(model.time),
        "digest": model.digest,
        "bytes": f"{model.size_bytes}, {model.location or 'in the record'}",
        "features": ", ".join(f"{name}={model.defaults[name]:g}" if name in model.defaults else name for name in model.features),
        "outputs": ", ".join(f"{out.name} ({out.tensor}{'' if out.column is None else f', column {out.column}'})" for out in model.outputs),
        "operators": ", ".join(model.operators),
    }


def _row(document: dict[str, Any]) -> list[object]:
    outputs = ", ".join(output["name"] for output in document["outputs"])
    return [
        document["name"],
        document["version"],
        document["serves"],
        len(document["features"]),
        outputs,
        document["size_bytes"],
        when(document["time"]),
        document["digest"][:12],
    ]

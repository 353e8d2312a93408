"""``millrace experiments``: plans, from a file to running to stopped."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from millrace.infra.kafka.control import Control
from millrace.infra.settings import Settings
from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Plan, State
from millrace.schemas.model import Route
from millrace.schemas.topics import EXPERIMENTS, ROUTES
from millrace.streams.revise import move, revise
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.report import kafka_settings, say, show, when
from millrace.workers.experiment_file import read_plan

File = Annotated[Path, typer.Argument(help="The experiment's TOML file; docs/experiments.md shows all of its keys.")]
Name = Annotated[str, typer.Argument(help="The experiment.")]
COLUMNS = ("name", "version", "state", "variants", "sample", "changed", "owner")
HISTORY = ("version", "state", "variants", "sample", "changed")

group = typer.Typer(name="experiments", help="Create, start and stop experiments.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (create, update, start, pause, stop):
        group.command()(command)
    group.command("list")(list_experiments)
    group.command("show")(show_experiment)
    app.add_typer(group)


def create(file: File, data: Data = None, json: Json = False) -> None:
    """Record a new experiment as a draft. It assigns nobody until `millrace experiments start`."""
    settings = kafka_settings(data)
    plan = read_plan(file, datetime.now(UTC))
    plans = _plans(settings)
    if plans.versions.newest(plan.name) is not None:
        raise UsageError(f"experiment {plan.name} exists: edit it with `millrace experiments update {file}`, or take another name")
    _check_models(settings, plan)
    _told(plans.append(plan.name, lambda _: plan), json)


def update(file: File, data: Data = None, json: Json = False) -> None:
    """Record the next version of an experiment. While it runs, edits that would break its randomisation are refused."""
    settings = kafka_settings(data)
    plan = read_plan(file, datetime.now(UTC))
    _check_models(settings, plan)
    _edit(_plans(settings), plan.name, lambda old: revise(old, plan), json)


def start(name: Name, data: Data = None, json: Json = False) -> None:
    """Let a draft or paused experiment assign."""
    settings = kafka_settings(data)
    plans = _plans(settings)
    _check_models(settings, _newest(plans, name))
    _edit(plans, name, lambda old: move(old, State.RUNNING, datetime.now(UTC)), json)


def pause(name: Name, data: Data = None, json: Json = False) -> None:
    """Assign nobody until it is started again; every unit then has the variant it had."""
    _edit(_plans(kafka_settings(data)), name, lambda old: move(old, State.PAUSED, datetime.now(UTC)), json)


def stop(name: Name, data: Data = None, json: Json = False) -> None:
    """End an experiment for good."""
    _edit(_plans(kafka_settings(data)), name, lambda old: move(old, State.STOPPED, datetime.now(UTC)), json)


def list_experiments(data: Data = None, json: Json = False) -> None:
    """All experiments, at their newest version."""
    plans = list(_plans(kafka_settings(data)).versions)
    rows = [[p.name, p.version, p.state, _arms(p), p.sample, when(p.time), p.owner] for p in plans]
    show(plans, rows, COLUMNS, json, "no experiments yet: `millrace experiments create FILE.toml` records one")


def show_experiment(name: Name, data: Data = None, json: Json = False) -> None:
    """Every version of one experiment, the newest last."""
    plans = _plans(kafka_settings(data))
    newest, history = _newest(plans, name), plans.of(name)
    if not json:
        say(f"{name}: {newest.state}, salt {newest.salt!r}" + (f", {newest.hypothesis}" if newest.hypothesis else ""))
    show(history, [[p.version, p.state, _arms(p), p.sample, when(p.time)] for p in history], HISTORY, json)


def _plans(settings: Settings) -> Control[Plan]:
    return Control(settings, EXPERIMENTS)


def _newest(plans: Control[Plan], name: str) -> Plan:
    plan = plans.versions.newest(name)
    if plan is None:
        known = ", ".join(plan.name for plan in plans.versions) or "none yet"
        raise UsageError(f"no experiment is called {name!r}; there are: {known}")
    return plan


def _edit(plans: Control[Plan], name: str, change: Callable[[Plan], Plan], json: bool) -> None:
    changed = change(_newest(plans, name))
    _told(plans.append(name, lambda _: changed), json)


def _told(plan: Plan, json: bool) -> None:
    if json:
        write_json(plan)
    else:
        say(f"{plan.name} version {plan.version}: {plan.state}, {_arms(plan)}")


def _arms(plan: Plan) -> str:
    total = sum(variant.weight for variant in plan.variants)
    return ", ".join(f"{variant.name} {variant.weight / total:.0%}" for variant in plan.variants)


def _check_models(settings: Settings, plan: Plan) -> None:
    """A variant whose model nobody serves would answer its units with errors."""
    wanted = {variant.model for variant in plan.variants if variant.model} | set(plan.models)
    if not wanted:
        return
    routes: Control[Route] = Control(settings, ROUTES)
    for name in sorted(wanted):
        if routes.versions.newest(name) is None:
            add = f"add it with `millrace models add {name} FILE.onnx`"
            raise UsageError(f"experiment {plan.name} names the model {name!r}, which has no route: {add}")

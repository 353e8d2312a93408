"""Plans and their life: create, validate, update, start, pause, resume, stop, conclude."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from msgspec import Struct
from msgspec.structs import replace

from millrace.infra.kafka.control import Control
from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Plan, State
from millrace.streams.plan_check import BEGUN, check_layer
from millrace.streams.plan_warnings import changed_analysis, warnings
from millrace.streams.revise import conclude as concluded
from millrace.streams.revise import move, revise
from millrace.streams.revise import resume as resumed
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.experiments.plans import File, Name, arms, check_models, edit, known_plans, newest_plan, told, warn
from millrace.workers.commands.report import kafka_settings, say
from millrace.workers.experiment_file import read_plan

Winner = Annotated[str, typer.Option("--variant", help="The variant that it came out for: the control, where nothing is to change.")]
Because = Annotated[str, typer.Option("--because", help="Why, for whoever reads it later.")]


class Validated(Struct, frozen=True):
    """What a file says, and what its author may not have meant."""

    plan: Plan
    warnings: list[str]


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module."""
    for command in (create, validate, update, start, pause, resume, stop, conclude):
        group.command()(command)


def validate(file: File, json: Json = False) -> None:
    """Check a file without recording it; nothing else needs to run. Exit code 2: it is refused, and says where and what to do."""
    plan = read_plan(file, datetime.now(UTC))
    found = warnings(plan)
    if json:
        write_json(Validated(plan, found))
        return
    say(f"{file}: {plan.name} is a good plan, {arms(plan)}")
    warn(found)


def create(file: File, data: Data = None, json: Json = False) -> None:
    """Record a new experiment as a draft. It assigns nobody until `millrace experiments start`."""
    plan = read_plan(file, datetime.now(UTC))
    settings = kafka_settings(data)
    plans = known_plans(settings)
    if plans.versions.newest(plan.name) is not None:
        raise UsageError(f"experiment {plan.name} exists: edit it with `millrace experiments update {file}`, or take another name")
    check_models(settings, plan)
    told(plans.append(plan.name, lambda _: plan), json)
    warn(warnings(plan) + _not_yet(plan, plans))


def update(file: File, data: Data = None, json: Json = False) -> None:
    """Record the next version of an experiment. Once it has begun, edits that would break its randomisation or counts are refused."""
    plan = read_plan(file, datetime.now(UTC))
    settings = kafka_settings(data)
    check_models(settings, plan)
    plans = known_plans(settings)
    old = newest_plan(plans, plan.name)
    if replace(revise(old, plan), version=old.version, time=old.time) == old:
        warn([f"{plan.name} version {old.version} says all of this already: nothing was recorded"])
        told(old, json)
        return
    edit(plans, plan.name, lambda old: revise(old, plan), json)
    warn(warnings(plan) + (changed_analysis(old, plan) if old.state in BEGUN else []))


def start(name: Name, data: Data = None, json: Json = False) -> None:
    """Let a draft or paused experiment assign."""
    settings = kafka_settings(data)
    plans = known_plans(settings)
    plan = newest_plan(plans, name)
    check_models(settings, plan)
    check_layer(plan, plans.versions)
    edit(plans, name, lambda old: move(old, State.RUNNING, _now()), json)
    _tell_of_overlap(plans, name)


def pause(name: Name, data: Data = None, json: Json = False) -> None:
    """Assign nobody until it is resumed; every unit then has the variant it had."""
    edit(known_plans(kafka_settings(data)), name, lambda old: move(old, State.PAUSED, _now()), json)


def resume(name: Name, data: Data = None, json: Json = False) -> None:
    """Let a paused experiment assign again."""
    edit(known_plans(kafka_settings(data)), name, lambda old: resumed(old, _now()), json)


def stop(name: Name, data: Data = None, json: Json = False) -> None:
    """End an experiment for good; what was counted is judged on until its windows have closed."""
    edit(known_plans(kafka_settings(data)), name, lambda old: move(old, State.STOPPED, _now()), json)


def conclude(name: Name, variant: Winner, because: Because, data: Data = None, json: Json = False) -> None:
    """Complete an experiment: record which variant it came out for, and why."""
    edit(known_plans(kafka_settings(data)), name, lambda old: concluded(old, variant, because, _now()), json)


def _not_yet(plan: Plan, plans: Control[Plan]) -> list[str]:
    """A draft may be prepared for a range that is in use still; it cannot start until that is free."""
    try:
        check_layer(plan, plans.versions)
    except UsageError as error:
        return [f"{error}; until then this cannot be started"]
    return []


def _tell_of_overlap(plans: Control[Plan], name: str) -> None:
    """Two who start experiments of one layer at the same moment do not see each other before."""
    plans.refresh()
    try:
        check_layer(newest_plan(plans, name), plans.versions)
    except UsageError as error:
        raise UsageError(f"{error}. Both were started at the same moment, and both assign: stop one of them") from None


def _now() -> datetime:
    return datetime.now(UTC)

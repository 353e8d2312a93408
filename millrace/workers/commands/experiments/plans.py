"""What the commands on experiments share: the plans that are recorded, and how one is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import replace

from millrace.infra.kafka.control import Control
from millrace.infra.kafka.whole import read_whole
from millrace.infra.settings import Settings
from millrace.schemas.errors import DecodeError, UsageError
from millrace.schemas.experiment import Plan
from millrace.schemas.model import Route
from millrace.schemas.policy import PolicyVersion
from millrace.schemas.topics import EXPERIMENTS, POLICIES, ROUTES
from millrace.schemas.wire import codec
from millrace.streams.plan_check import can_assign
from millrace.workers.commands.common import write_json
from millrace.workers.commands.report import say

File = Annotated[Path, typer.Argument(help="The experiment's TOML file; docs/experiments.md shows all of its keys.")]
Name = Annotated[str, typer.Argument(help="The experiment.")]


def known_plans(settings: Settings) -> Control[Plan]:
    """All plans that are recorded."""
    return Control(settings, EXPERIMENTS)


def newest_plan(plans: Control[Plan], name: str) -> Plan:
    """The plan that workers go by, with the newest number that is taken. Raises UsageError that says which experiments there are."""
    newest = plans.versions.newest(name)
    if newest is None:
        known = ", ".join(plan.name for plan in plans.versions) or "none yet"
        raise UsageError(f"no experiment is called {name!r}; there are: {known}")
    able = next((plan for plan in reversed(plans.of(name)) if can_assign(plan)), newest)
    return replace(able, version=newest.version)


def newest_policies(settings: Settings) -> dict[str, PolicyVersion]:
    """The newest version of each experiment's policy, of those that have one."""
    coded, newest = codec(POLICIES), dict[str, PolicyVersion]()
    for record in read_whole(settings, POLICIES):
        try:
            policy: PolicyVersion = coded.decode(record.value, record.headers)
        except DecodeError:
            continue  # not valid for any reader; the workers that follow this topic tell of it
        known = newest.get(policy.experiment)
        if known is None or policy.version > known.version:
            newest[policy.experiment] = policy
    return newest


def edit(plans: Control[Plan], name: str, change: Callable[[Plan], Plan], json: bool) -> None:
    """Record what ``change`` makes of an experiment's newest plan, and tell of it."""
    changed = change(newest_plan(plans, name))
    told(plans.append(name, lambda _: changed), json)


def told(plan: Plan, json: bool) -> None:
    """Say what a plan is now."""
    if json:
        write_json(plan)
    else:
        say(f"{plan.name} version {plan.version}: {plan.state}, {arms(plan)}" + (f"; {plan.conclusion}" if plan.conclusion else ""))


def warn(sentences: Iterable[str]) -> None:
    """On standard error, so that a document on standard output stays one."""
    for sentence in sentences:
        typer.echo(f"note: {sentence}", err=True)


def arms(plan: Plan) -> str:
    """The variants and their shares; those of a version that another program wrote may have none."""
    total = sum(variant.weight for variant in plan.variants) or 1.0
    return ", ".join(f"{variant.name} {variant.weight / total:.0%}" for variant in plan.variants)


def check_models(settings: Settings, plan: Plan) -> None:
    """A variant whose model nobody serves would answer its units with errors."""
    wanted = {variant.model for variant in plan.variants if variant.model} | set(plan.models)
    if not wanted:
        return
    routes: Control[Route] = Control(settings, ROUTES)
    for name in sorted(wanted):
        if routes.versions.newest(name) is None:
            add = f"add it with `millrace models add {name} FILE.onnx`"
            raise UsageError(f"experiment {plan.name} names the model {name!r}, which has no route: {add}")

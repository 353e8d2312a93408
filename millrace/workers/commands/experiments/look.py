"""Looking at plans: all of them, the versions of one, and what one does with a unit."""

from __future__ import annotations

import json as jsonlib
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millrace.infra.settings import Settings
from millrace.schemas.errors import Never, UsageError
from millrace.schemas.experiment import Plan
from millrace.schemas.request import Request
from millrace.streams.plan_check import BEGUN
from millrace.workers.commands.common import Data, Json, write_json
from millrace.workers.commands.experiments.plans import Name, arms, known_plans, newest_plan, newest_policies, warn
from millrace.workers.commands.report import kafka_settings, say, show, when

if TYPE_CHECKING:
    from millrace.streams.explain import Explanation

UnitId = Annotated[str, typer.Argument(help="The unit.")]
One = Annotated[str, typer.Option("--experiment", help="Tell of this experiment alone, gate by gate; else of all that have begun.")]
Context = Annotated[str, typer.Option("--context", help="The request's context: a JSON object.")]
RequestId = Annotated[str | None, typer.Option("--request-id", help="The request, where requests are randomised; a new one, if left out.")]
Model = Annotated[str | None, typer.Option("--model", help="The model that the request asks for; none, if left out.")]
COLUMNS = ("name", "version", "state", "variants", "sample", "changed", "owner")
HISTORY = ("version", "state", "variants", "sample", "changed")
GIVEN = ("experiment", "version", "state", "variant", "propensity", "because")
GATES = ("gate", "passed", "bucket", "from", "below", "asks whether")


def add_to(group: typer.Typer) -> None:
    """Add the commands of this module."""
    group.command("list")(list_experiments)
    group.command("show")(show_experiment)
    group.command()(assign)


def list_experiments(data: Data = None, json: Json = False) -> None:
    """All experiments, at their newest version."""
    plans = list(known_plans(kafka_settings(data)).versions)
    rows = [[p.name, p.version, p.state, arms(p), p.sample, when(p.time), p.owner] for p in plans]
    show(plans, rows, COLUMNS, json, "no experiments yet: `millrace experiments create FILE.toml` records one")


def show_experiment(name: Name, data: Data = None, json: Json = False) -> None:
    """Every version of one experiment, the newest last."""
    plans = known_plans(kafka_settings(data))
    newest, history = newest_plan(plans, name), plans.of(name)
    if not json:
        more = "".join(f", {text}" for text in (newest.hypothesis, newest.conclusion) if text)
        say(f"{name}: {newest.state}, salt {newest.salt!r}{more}")
    show(history, [[p.version, p.state, arms(p), p.sample, when(p.time)] for p in history], HISTORY, json)


def assign(
    unit: UnitId,
    experiment: One = "",
    context: Context = "{}",
    request_id: RequestId = None,
    model: Model = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Say which variant a unit gets of each experiment, and why, or why none. Nothing is recorded: it is computed as the workers do."""
    request = Request(id=request_id or uuid.uuid4().hex, unit_id=unit, model=model, context=_context(context))
    settings = kafka_settings(data)
    plans = known_plans(settings)
    if experiment:
        for told in _explained(settings, [newest_plan(plans, experiment)], request):
            write_json(told) if json else _print(told)
        return
    found = list(_explained(settings, [plan for plan in plans.versions if plan.state in BEGUN], request))
    rows = [[one.experiment, one.plan_version, one.state, one.variant, _chance(one.propensity), one.because] for one in found]
    show(found, rows, GIVEN, json, "no experiment has begun: `millrace experiments start NAME` starts one")


def _explained(settings: Settings, plans: list[Plan], request: Request) -> Iterator[Explanation]:
    """What each plan does with a request; of one that cannot assign it is said so, on standard error."""
    from millrace.streams.explain import explain

    policies = newest_policies(settings) if any(plan.allocation is not None for plan in plans) else {}
    now = datetime.now(UTC)
    for plan in plans:
        try:
            yield explain(plan, request, now, policies.get(plan.name))
        except Never as error:
            warn([f"{error}; the workers leave it out"])


def _context(text: str) -> dict[str, Any]:
    try:
        context = jsonlib.loads(text)
    except ValueError as error:
        raise UsageError(f"--context is not JSON: {error}") from None
    if not isinstance(context, dict):
        raise UsageError(f"--context is no JSON object: {text}")
    return context


def _print(told: Explanation) -> None:
    given = f"{told.variant} with propensity {told.propensity:.4g}" if told.takes_part else "no variant"
    say(f"{told.unit_id} gets {given} in {told.experiment} version {told.plan_version}: {told.because}")
    rows = [[g.gate, "yes" if g.passed else "no", _place(g.bucket), g.low, g.high, g.asks] for g in told.gates]
    show([], rows, GATES, False)
    for span in told.spans:
        say(f"variant buckets [{span.low:.6f}, {span.high:.6f}): {span.variant}")
    for variant, chance in told.propensities.items():
        say(f"policy version {told.policy_version}: {variant} has the chance {chance:.6f}")


def _chance(propensity: float | None) -> str | None:
    return None if propensity is None else f"{propensity:.4g}"


def _place(bucket: float | None) -> str | None:
    return None if bucket is None else f"{bucket:.6f}"

"""``millrace experiments ope``: what another policy would have earned, from the logged propensities of the one that ran."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from msgspec import Struct

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell, Kind
from millrace.workers.addresses import connected
from millrace.workers.commands.common import EXIT_PROBLEMS, Data, Json, settings_with, write_json
from millrace.workers.commands.experiments.plans import Name
from millrace.workers.commands.report import say, show

if TYPE_CHECKING:
    from millrace.schemas.experiment import Plan
    from millrace.schemas.metric import Metric
    from millrace.streams.off_policy.estimate import Estimate

UNIFORM = "uniform"
COLUMNS = ("estimator", "value", "from", "to", "effective size", "largest weight")
Target = Annotated[str, typer.Option("--target", help='"uniform", or a JSON object of chances: {"a": 0.2, "b": 0.8}, or a file with one.')]
MetricName = Annotated[str, typer.Option("--metric", help="The reward; the allocation's, if left out.")]
Tau = Annotated[float, typer.Option("--tau", min=0, help="Switch-DR trusts the model alone where a record would weigh more.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="How many seconds the archiver has to catch up with the named offsets.")]


class Evaluated(Struct, frozen=True, kw_only=True):
    """What was found: the target's chances, how many decisions of which variants, and each estimator's word."""

    experiment: str
    metric: str
    target: dict[str, float]
    decisions: dict[str, int]
    mean_reward: float | CannotTell
    offsets: dict[int, dict[str, int]]
    estimates: dict[str, Estimate | CannotTell]


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(ope)


def ope(
    name: Name,
    target: Target = UNIFORM,
    metric: MetricName = "",
    tau: Tau = 10.0,
    wait: Wait = 30.0,
    data: Data = None,
    json: Json = False,
) -> None:
    """Estimate what other chances would have earned for each decision, from the log of those that were given.

    Intervals hold at every look. Where the log saw too little of what the target would do, it is refused, with the reason; exit code 1
    where every estimator refuses.
    """
    wanted = _target(target)
    found = _evaluated(name, wanted, metric, tau, (data, wait))
    if json:
        write_json(found)
    else:
        _tell(found)
    if all(isinstance(one, CannotTell) for one in found.estimates.values()):
        raise typer.Exit(EXIT_PROBLEMS)


def _target(text: str) -> dict[str, float] | None:
    if text == UNIFORM:
        return None
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text()
        return msgspec.json.decode(content, type=dict[str, float])
    except OSError as error:
        raise UsageError(f'--target {text}: {error.strerror}; give "uniform", a JSON object or a file with one') from None
    except msgspec.DecodeError as error:
        raise UsageError(f'--target is no JSON object of chances such as {{"a": 0.2, "b": 0.8}}: {error}') from None


def _evaluated(name: str, wanted: dict[str, float] | None, metric: str, tau: float, where: tuple[Path | None, float]) -> Evaluated:
    from collections import Counter

    from millrace.infra.clickhouse.client import Client
    from millrace.infra.clickhouse.experiments.logged import logged
    from millrace.schemas.experiment import CONTEXTUAL
    from millrace.streams.off_policy.evaluation import estimates, target_of
    from millrace.streams.off_policy.overlap import Terms
    from millrace.workers import experiments_verify as batch
    from millrace.workers.sealed import read

    settings = connected(settings_with(where[0]))
    versions = batch.versions_of(settings, name)
    plan = versions[-1]
    reward, target = _reward(plan, metric), target_of([variant.name for variant in plan.variants], wanted)
    offsets = {number: one.seal.offsets for number, one in read(settings, name).items()}
    infos = batch.topics(settings)
    batch.wait_for_archive(settings, infos, offsets, where[1])
    client = Client(settings.clickhouse, batch.ANSWER_SECONDS)
    client.use_database()
    try:
        decisions = logged(client, batch.as_of(versions, infos, offsets), reward)
    finally:
        client.close()
    mean = sum(one.reward for one in decisions) / len(decisions) if decisions else CannotTell("no decision counts yet")
    terms = Terms(alpha=plan.analysis.alpha, tuning=plan.analysis.tuning)
    by_context = plan.allocation is not None and plan.allocation.policy in CONTEXTUAL
    return Evaluated(
        experiment=name,
        metric=reward.name,
        target=target,
        decisions=dict(sorted(Counter(one.variant for one in decisions).items())),
        mean_reward=mean,
        offsets=offsets,
        estimates=estimates(decisions, target, terms, tau, by_context=by_context),
    )


def _reward(plan: Plan, name: str) -> Metric:
    wanted = name or (plan.allocation.metric if plan.allocation is not None else "")
    if not wanted:
        raise UsageError(f"experiment {plan.name} learns no weights: say with --metric which of its metrics is the reward")
    found = next((metric for metric in plan.metrics if metric.name == wanted), None)
    if found is None:
        raise UsageError(f"experiment {plan.name} has no metric {wanted!r}; it has {', '.join(one.name for one in plan.metrics) or 'none'}")
    if found.kind not in (Kind.MEAN, Kind.PROPORTION):
        raise UsageError(f"the metric {wanted} is a {found.kind}: a reward is a mean or a proportion")
    return found


def _tell(found: Evaluated) -> None:
    told = ", ".join(f"{variant} {chance:.4g}" for variant, chance in found.target.items())
    say(f"{found.experiment}: {found.metric} for each decision, had the chances been {told}")
    seen = ", ".join(f"{variant} {number:,}" for variant, number in found.decisions.items())
    mean = "cannot tell" if isinstance(found.mean_reward, CannotTell) else f"{found.mean_reward:.6g}"
    say(f"logged: {seen or 'nothing'}; the policy that ran earned {mean}\n")
    show([], [_row(name, one) for name, one in found.estimates.items()], COLUMNS, False)
    for name, one in found.estimates.items():
        if isinstance(one, CannotTell):
            say(f"\n{name} is refused: {one.reason}")


def _row(name: str, one: Estimate | CannotTell) -> list[object]:
    if isinstance(one, CannotTell):
        return [name, "refused", None, None, None, None]
    numbers = [f"{one.value:.6g}", *(f"{bound:.6g}" for bound in one.interval)]
    overlap = one.overlap
    return [name, *numbers, *([None, None] if overlap is None else [f"{overlap.effective_size:,.1f}", f"{overlap.largest_weight:.4g}"])]

"""``millrace experiments power``: how many units an experiment needs, or what it can find with those it has."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from millrace.schemas.errors import UsageError
from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import LEAST_STEP, Spending
from millrace.streams.stats.effect import Difference
from millrace.workers.commands.common import Json, write_json
from millrace.workers.commands.report import say, show
from millrace.workers.experiment_file import read_plan

if TYPE_CHECKING:
    from millrace.streams.stats.power import Baseline

Mean = Annotated[float, typer.Option("--baseline", help="The control's mean, proportion or ratio.")]
Variance = Annotated[
    float | None, typer.Option("--variance", min=0, help="Of one unit's value (a ratio's linearised); of a proportion it follows.")
]
Effect = Annotated[float | None, typer.Option("--effect", help="The effect to be found, in the units of the difference.")]
Units = Annotated[int | None, typer.Option("--units", min=2, help="How many units all arms have together.")]
KindOf = Annotated[Kind, typer.Option("--kind", help="The metric's kind.")]
Relation = Annotated[Difference, typer.Option("--difference", help="Whether the effect is a share of the baseline.")]
Alpha = Annotated[float, typer.Option("--alpha", help="The level of all tests together.")]
Power = Annotated[float, typer.Option("--power", help="How likely the effect is to be found.")]
Weights = Annotated[str, typer.Option("--weights", help="The arms' weights with commas between, the control's first.")]
Tuning = Annotated[
    float | None,
    typer.Option("--sequential", min=1, help="Looked at any time, narrowest at so many units; without it, at a fixed horizon."),
]
Tau = Annotated[float | None, typer.Option("--tau", help="Looked at any time by the mixture SPRT: effects of this size are plausible.")]
Looks = Annotated[
    str, typer.Option("--looks", help="Looked at when so many units count: their shares with commas between: 0.25,0.5,0.75,1")
]
SpendingOf = Annotated[Spending, typer.Option("--spending", help="How the planned looks share alpha.")]
Tests = Annotated[int, typer.Option("--tests", min=1, help="How many tests share alpha (Bonferroni).")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", help="An experiment's file: it says all but baseline, variance, units and power itself.")
]
Name = Annotated[str, typer.Option("--metric", help="The plan's metric; its first primary one, if left out.")]


def add_to(group: typer.Typer) -> None:
    """Add the command of this module."""
    group.command()(power)


def power(
    mean: Mean,
    variance: Variance = None,
    effect: Effect = None,
    units: Units = None,
    kind: KindOf = Kind.MEAN,
    difference: Relation = Difference.RELATIVE,
    alpha: Alpha = 0.05,
    wanted: Power = 0.8,
    weights: Weights = "1,1",
    sequential: Tuning = None,
    tau: Tau = None,
    looks: Looks = "",
    spending: SpendingOf = Spending.OBRIEN_FLEMING,
    tests: Tests = 1,
    plan: PlanFile = None,
    metric: Name = "",
    json: Json = False,
) -> None:
    """Say how many units find an effect, what effect so many units find, or, given both, with which power.

    Each treatment is compared with the control; the hardest of the comparisons counts. With a plan the effect is its metric's minimal
    one, where neither effect nor units are given.
    """
    from millrace.streams.judge.planning import Asked, asked_by, metric_of, planned

    if plan is not None:
        found = read_plan(plan, datetime.now(UTC))
        one = metric_of(found, metric)
        asked = asked_by(found, one, wanted)
        if effect is None and units is None and one.minimal_effect:
            effect = -one.minimal_effect if asked.decrease else one.minimal_effect
    else:
        asked = Asked(
            kind=kind,
            difference=difference,
            alpha=alpha / tests,
            power=wanted,
            shares=_shares(weights),
            tuning=sequential,
            tau=tau,
            looks=_fractions(looks),
            spending=spending,
        )
    try:
        told = planned(asked, _baseline(asked.kind, mean, variance), effect, units)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if json:
        write_json(told)
        return
    said = "looked at when planned" if asked.looks else "looked at any time" if told.sequential else "at a fixed horizon"
    say(f"effect {_cell(told.effect)} with power {_cell(told.power)} at alpha {told.alpha:.4g}, {said}: {_cell(told.total)} units")
    if not isinstance(told.units, CannotTell):
        show([], [[name, number] for name, number in told.units.items()], ("arm", "units"), False)
    if told.looks is not None:
        rows = [[n, look.units, f"{look.boundary:.4g}", f"{look.found:.1%}"] for n, look in enumerate(told.looks, 1)]
        show([], rows, ("look", "at units", "boundary of |z|", "found by then"), False)


def _baseline(kind: Kind, mean: float, variance: float | None) -> Baseline:
    from millrace.streams.stats.power import Baseline

    if kind is Kind.PROPORTION:
        if not 0.0 <= mean <= 1.0:
            raise UsageError(f"--baseline of a proportion is between 0 and 1, not {mean:g}")
        if variance is not None:
            raise UsageError("--variance of a proportion follows from the baseline: leave it out")
        return Baseline.proportion(mean)
    if variance is None:
        raise UsageError(f"give the --variance of one unit's value too: the power for a {kind} rests on it")
    return Baseline(kind=kind, mean=mean, variance=variance)


def _fractions(text: str) -> tuple[float, ...]:
    """The shares of the units at each planned look."""
    try:
        fractions = tuple(float(one) for one in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(f"--looks are numbers with commas between, such as 0.25,0.5,0.75,1, not {text!r}") from None
    if fractions and (fractions[-1] != 1.0 or any(after - before < LEAST_STEP for before, after in pairwise((0.0, *fractions)))):
        raise UsageError(f"--looks are shares of the units that rise by at least {LEAST_STEP}, the last of them 1, not {text!r}")
    return fractions


def _shares(text: str) -> dict[str, float]:
    """Weights as shares: control, treatment, treatment-2 and so on."""
    try:
        weights = [float(one) for one in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights are numbers with commas between, such as 1,1, not {text!r}") from None
    if len(weights) < 2 or not all(0.0 <= weight < math.inf for weight in weights) or not any(weights):
        raise UsageError(f"--weights are at least two numbers of at least 0, one above it, not {text!r}")
    names = ["control", "treatment", *(f"treatment-{number}" for number in range(2, len(weights)))]
    return {name: weight / math.fsum(weights) for name, weight in zip(names, weights, strict=True)}


def _cell(value: float | CannotTell) -> str:
    return f"that cannot be told ({value.reason})" if isinstance(value, CannotTell) else f"{value:,.6g}"

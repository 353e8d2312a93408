"""The commands around the judge: a calculator that names the field that is wrong, plans of sample size, and a result for reading."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.main import get_command
from typer.testing import CliRunner

from millrace.schemas.errors import SettingsError, UsageError
from millrace.schemas.experiment import Analysis, Correction, Looks, Rule, Spending, Variant
from millrace.schemas.metric import Direction, Metric, Role
from millrace.streams.judge.calculator import MeanQuestion, MeanSums, evaluate
from millrace.streams.judge.planning import Asked, asked_by, metric_of, planned
from millrace.streams.stats.effect import Difference
from millrace.streams.stats.power import Baseline
from millrace.workers import judge as worker
from millrace.workers.cli import app
from millrace.workers.commands.experiments.results import tell
from tests.judging import PAID, counted, experiment, judged, sealed, seen

ARM = {"n": 100, "total": 50, "squares": 60}
MEAN = {"kind": "mean", "difference": "absolute", "control": ARM, "treatment": ARM}


def run(*arguments: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, ["experiments", *arguments], input=stdin)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "median"}, "at `$.kind`. Write one of mean, proportion, ratio."),
        ({"difference": "odd"}, "$.difference"),
        ({"alpha": 2}, "$.alpha"),
        ({"tuning": 0}, "$.tuning"),
        ({"prior": {"mean": 0, "variance": 0}}, "$.prior.variance"),
        ({"control": {"n": -1, "total": 0, "squares": 0}}, "$.control.n"),
        ({"control": {"n": 1, "total": 0}}, "`squares` - at `$.control`"),
        ({"treatment": ARM | {"median": 1}}, "unknown field `median` - at `$.treatment`"),
        ({"treatment": {"n": 10, "total": 100, "squares": 10}}, "$.treatment.squares"),
        ({"treatment": ARM | {"covariate_total": 1.0}}, "$.control.covariate_total"),
        ({"counts": [1, -1]}, "$.counts"),
        ({"counts": [10, 10], "weights": [1]}, "$.weights"),
        ({"counts": [10, 10], "weights": [0, 0]}, "$.weights"),
        ({"weights": [1, 1]}, "$.counts"),
        ({"why": 1}, "unknown field `why`. A whole file stands in `millrace experiments evaluate --help`."),
        ({"kind": "proportion", "control": {"n": 10, "total": 11}, "treatment": {"n": 10, "total": 1}}, "$.control.total"),
        (
            {"kind": "proportion", "control": {"n": 10, "total": 1, "squares": 2}, "treatment": {"n": 10, "total": 1}},
            "$.control.squares",
        ),
    ],
)
def test_what_is_wrong_in_a_question_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "question.json"
    file.write_text(json.dumps(MEAN | change))
    result = run("evaluate", str(file), "--json")
    assert isinstance(result.exception, UsageError), result.output
    assert said in str(result.exception)


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_what_is_no_question_is_refused(text: str) -> None:
    assert isinstance(run("evaluate", "-", stdin=text).exception, UsageError)
    assert "No such file" in str(run("evaluate", "/nowhere.json").exception)


def test_what_cannot_be_told_is_said_in_place_of_each_number() -> None:
    nothing = {"kind": "proportion", "difference": "relative", "control": {"n": 10, "total": 0}, "treatment": {"n": 10, "total": 1}}
    told = json.loads(run("evaluate", "-", "--json", stdin=json.dumps(nothing)).stdout)
    reason = {"type": "cannot_tell", "reason": told["reason"]}
    assert told["type"] == "cannot_tell"
    assert [told[name] for name in ("effect", "std_error", "interval", "p_value", "always_valid", "bayesian")] == [reason] * 6
    assert told["cohens_d"] > 0
    shown = run("evaluate", "-", stdin=json.dumps(nothing)).stdout
    assert "cannot tell: the control's mean is 0" in shown


def test_a_question_is_answered_for_reading() -> None:
    shown = run("evaluate", "-", stdin=json.dumps(MEAN | {"counts": [100, 100]})).stdout.splitlines()
    names = ["value", "effect", "std_error", "interval", "p_value"]
    names += ["always_valid"] * 2 + ["bayesian"] * 5 + ["cohens_d", "sample_ratio"]
    assert [line.split()[0] for line in shown] == names


def test_the_prior_the_level_and_the_covariate_count() -> None:
    arms = [MeanSums(n=1_000, total=total, squares=2_000.0) for total in (1_000.0, 1_100.0)]
    plain = evaluate(MeanQuestion(difference=Difference.ABSOLUTE, control=arms[0], treatment=arms[1]))
    strict = evaluate(MeanQuestion(difference=Difference.ABSOLUTE, alpha=0.001, control=arms[0], treatment=arms[1]))
    known = [
        MeanSums(n=1_000, total=arm.total, squares=2_000.0, covariate_total=0.0, covariate_squares=1_000.0, covariate_cross=800.0)
        for arm in arms
    ]
    adjusted = evaluate(MeanQuestion(difference=Difference.ABSOLUTE, control=known[0], treatment=known[1]))
    assert isinstance(plain.std_error, float)
    assert isinstance(adjusted.std_error, float)
    assert adjusted.std_error < 0.7 * plain.std_error
    assert isinstance(plain.interval, tuple)
    assert isinstance(strict.interval, tuple)
    assert strict.interval[0] < plain.interval[0]


HALF = {"a": 0.5, "b": 0.5}


def test_units_effect_and_power_are_one_question() -> None:
    before = Baseline.proportion(0.1)
    asked = Asked(difference=Difference.ABSOLUTE, shares=HALF)
    needed = planned(asked, before, 0.02, None)
    assert needed.units == {"a": 3_839, "b": 3_839}
    assert isinstance(needed.total, int)
    assert planned(asked, before, 0.02, needed.total).power == pytest.approx(0.8, abs=1e-3)
    assert planned(asked, before, None, needed.total).effect == pytest.approx(0.02, abs=1e-4)
    with pytest.raises(UsageError, match="the effect to be found"):
        planned(asked, before, None, None)


def test_several_arms_need_what_their_hardest_pair_needs() -> None:
    before = Baseline.proportion(0.1)
    two = planned(Asked(shares=HALF), before, 0.2, None)
    three = planned(Asked(shares={"a": 0.5, "b": 0.4, "c": 0.1}), before, 0.2, None)
    assert isinstance(two.total, int)
    assert isinstance(three.total, int)
    assert three.total > 2 * two.total
    assert isinstance(three.units, dict)
    assert sum(three.units.values()) == pytest.approx(three.total, abs=2)
    with pytest.raises(UsageError, match="weights above 0"):
        planned(Asked(shares={"a": 0.0, "b": 1.0}), before, 0.2, None)


def test_a_plan_says_how_it_will_be_judged() -> None:
    down = Metric(name="latency", outcome="latency", role=Role.PRIMARY, direction=Direction.DECREASE)
    guard = Metric(name="guard", outcome="error", role=Role.GUARDRAIL)
    plan = experiment(
        down, PAID, guard, variants=(Variant(name="a"), Variant(name="b"), Variant(name="c")), analysis=Analysis(tuning=777.0, alpha=0.04)
    )
    asked = asked_by(plan, metric_of(plan, ""), 0.9)
    assert (asked.alpha, asked.tuning, asked.decrease, asked.power) == (0.01, 777.0, True, 0.9)
    assert asked_by(plan, guard, 0.9).alpha == 0.02
    loose = experiment(down, PAID, analysis=Analysis(correction=Correction.NONE, rule=Rule.FIXED, difference="absolute"))
    asked = asked_by(loose, metric_of(loose, "paid"), 0.9)
    assert (asked.alpha, asked.tuning, asked.difference) == (0.05, None, Difference.ABSOLUTE)
    mixed = [experiment(replace(PAID, minimal_effect=least), analysis=Analysis(rule=Rule.MSPRT, tuning=777.0)) for least in (0.1, 0.0)]
    assert [(asked.tau, asked.tuning) for asked in (asked_by(one, one.metrics[0], 0.8) for one in mixed)] == [(0.1, None), (None, 777.0)]
    looks = Looks(units=9_000, fractions=(0.5, 1.0), spending=Spending.POCOCK)
    group = experiment(analysis=Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=looks))
    asked = asked_by(group, group.metrics[0], 0.8)
    assert (asked.looks, asked.spending, asked.tuning, asked.tau) == ((0.5, 1.0), Spending.POCOCK, None, None)
    with pytest.raises(UsageError, match="no metric 'x'; its metrics are: latency, paid"):
        metric_of(loose, "x")


def test_power_on_the_command_line(tmp_path: Path) -> None:
    flags = ("--kind", "proportion", "--baseline", "0.1", "--difference", "absolute")
    assert json.loads(run("power", *flags, "--effect", "0.02", "--json").stdout)["total"] == 7_678
    sequential = json.loads(run("power", *flags, "--effect", "0.02", "--sequential", "5000", "--tests", "2", "--json").stdout)
    assert sequential["total"] > 7_678
    assert (sequential["alpha"], sequential["sequential"]) == (0.025, True)
    file = tmp_path / "plan.toml"
    file.write_text(
        'name = "e"\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nweight = 3\n'
        '[[metrics]]\nname = "paid"\noutcome = "paid"\nkind = "proportion"\nrole = "primary"\nminimal_effect = 0.1\n'
    )
    told = json.loads(run("power", "--baseline", "0.1", "--plan", str(file), "--json").stdout)
    assert told["effect"] == 0.1
    assert told["units"]["b"] == pytest.approx(3 * told["units"]["a"], abs=3)
    assert "looked at any time" in run("power", "--baseline", "0.1", "--plan", str(file)).stdout
    planned_looks = json.loads(run("power", *flags, "--effect", "0.02", "--looks", "0.5,1", "--spending", "pocock", "--json").stdout)
    assert [look["units"] for look in planned_looks["looks"]] == [planned_looks["total"] // 2, planned_looks["total"]]
    assert planned_looks["looks"][-1]["found"] == pytest.approx(0.8, abs=1e-3)
    shown = run("power", *flags, "--effect", "0.02", "--looks", "0.5,1").stdout
    assert "looked at when planned" in shown
    assert "found by then" in shown
    for looks in ("x", "0.5,0.9", "0.5,0.5,1"):
        assert isinstance(run("power", *flags, "--effect", "0.02", "--looks", looks).exception, UsageError)
    mixed = json.loads(run("power", *flags, "--effect", "0.02", "--tau", "0.02", "--json").stdout)
    assert 7_678 < mixed["total"] < 2 * 7_678
    for wrong in (
        ("--baseline", "10"),
        ("--baseline", "2", "--kind", "proportion"),
        ("--baseline", "1", "--variance", "1", "--weights", "x"),
    ):
        assert isinstance(run("power", *wrong, "--effect", "1").exception, UsageError)


def test_a_result_for_reading(capsys: pytest.CaptureFixture[str]) -> None:
    errors = Metric(name="errors", outcome="error", role=Role.GUARDRAIL, limit=0.1)
    sums = {"paid": {"a": counted(5_000, 500), "b": counted(5_000, 700)}, "errors": {"a": counted(5_000, 0), "b": counted(5_000, 0)}}
    tell(judged(experiment(PAID, errors), sealed(sums, {"a": seen(5_000), "b": seen(5_000, multiple=100, exposed=5_100)})))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "decision: implement b, by the rule always_valid: paid of b differs by +0.4 (p 1.28e-05): better"
    (row,) = [line.split() for line in lines if line.startswith("paid") and " b " in line]
    assert row[:6] == ["paid", "primary", "b", "5000", "0.14", "+0.4"]
    assert any(line.startswith("cannot tell: errors of b: ") for line in lines)
    assert any(line.startswith("  warning: no_variance (errors b): ") for line in lines)


def test_a_result_says_what_its_rule_decided_by(capsys: pytest.CaptureFixture[str]) -> None:
    sums = sealed({"paid": {"a": counted(5_000, 500), "b": counted(5_000, 700)}})
    tell(judged(experiment(analysis=Analysis(rule=Rule.MSPRT, tau=0.1)), sums))
    told = capsys.readouterr().out
    assert "mixture SPRT:" in told
    assert "by the rule msprt" in told
    tell(judged(experiment(analysis=Analysis(rule=Rule.GROUP_SEQUENTIAL, looks=Looks(units=20_000))), sums))
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if " of 4 " in line and line.startswith("paid")]
    assert row[:6] == ["paid", "b", "2", "of", "4", "10000"]
    assert "crosses" in row


@pytest.mark.parametrize("command", sorted(get_command(app).commands["experiments"].commands))  # type: ignore[attr-defined]
def test_every_command_writes_json(command: str) -> None:
    asked = get_command(app).commands["experiments"].commands[command]  # type: ignore[attr-defined]
    assert "--json" in [name for parameter in asked.params for name in parameter.opts]


def test_policies_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("good", "math:fsum", "millrace.policies")]
    monkeypatch.setattr(worker, "entry_points", lambda group: points)
    assert list(worker.installed()) == ["good"]
    for value, said in (("no_such_module:x", "cannot be loaded: ModuleNotFoundError"), ("math:pi", "is no function")):
        points[:] = [EntryPoint("bad", value, "millrace.policies")]
        with pytest.raises(SettingsError, match=said):
            worker.installed()

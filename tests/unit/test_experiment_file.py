"""An experiment's TOML file: what it may say, and what is said about what it may not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Condition, Layer, Policy, State, Test, Unit, Variant
from millrace.schemas.metric import Role
from millrace.workers.experiment_file import EXAMPLE, read_plan

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WHOLE = """
name = "checkout"
salt = "2026"
sample = 0.5
models = ["approve"]
owner = "pricing"
hypothesis = "more good orders"

[[targeting]]
field = "age"
test = "range"
value = [18, 65]

[[variants]]
name = "control"
weight = 3
model = "approve"

[[variants]]
name = "challenger"
parameters = { threshold = 0.4 }

[overrides]
"customer-1" = "control"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "experiment.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, WHOLE), NOW)
    assert (plan.name, plan.version, plan.state, plan.salt, plan.time) == ("checkout", 1, State.DRAFT, "2026", NOW)
    assert plan.variants == (
        Variant(name="control", weight=3.0, model="approve"),
        Variant(name="challenger", parameters={"threshold": 0.4}),
    )
    assert plan.targeting == (Condition(field="age", test=Test.RANGE, value=[18, 65]),)
    assert (plan.overrides, plan.models, plan.sample) == ({"customer-1": "control"}, ("approve",), 0.5)


def test_the_example_that_errors_show_is_a_good_one_and_its_salt_is_its_name(tmp_path: Path) -> None:
    assert read_plan(write(tmp_path, EXAMPLE), NOW).salt == "checkout"


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ('name = "checkout"', 'name = "check out"', r"\$\.name.*Write letters, digits, dots"),
        ("sample = 0.5", "sample = 1.5", r"<= 1.*\$\.sample"),
        ("weight = 3", "weight = -1", r">= 0.*\$\.variants\[0\]\.weight`\. There stands -1"),
        ("weight = 3", "wait = 3", r"unknown field `wait`.*\$\.variants\[0\].*The keys there are name, weight, model, parameters"),
        ("owner =", "ownr =", r"unknown field `ownr`.*Did you mean owner\? The keys are name, variants"),
        (
            'test = "range"',
            'test = "between"',
            r"Invalid enum value 'between'.*\$\.targeting\[0\]\.test.*Write one of equals, not_equals, in",
        ),
        ("value = [18, 65]", "value = 18", "range"),
        ('name = "challenger"', 'name = "control"', "two variants have one name"),
        ('"customer-1" = "control"', '"customer-1" = "nobody"', "'nobody', which is none of control, challenger"),
        ("[[targeting]]", "[[targeting", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)experiment.toml.*{said}"):
        read_plan(write(tmp_path, WHOLE.replace(was, becomes)), NOW)


def test_weights_that_are_all_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of them above 0"):
        read_plan(write(tmp_path, EXAMPLE.replace('model = "approve"', "weight = 0").replace('model = "approve-next"', "weight = 0")), NOW)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_plan(tmp_path / "none.toml", NOW)


def test_an_end_of_a_range_is_left_open_with_inf(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, WHOLE.replace("[18, 65]", "[18, inf]")), NOW)
    assert plan.targeting[0].value == [18, None]


def test_the_file_that_the_docs_show_is_a_good_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    plan = read_plan(write(tmp_path, text.split("```toml")[1].split("```")[0]), NOW)
    assert [variant.name for variant in plan.variants] == ["control", "challenger"]
    assert plan.targeting == (Condition(field="country", test=Test.IN, value=["DE", "FR"]),)


EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
CONTEXTUAL = """
[[metrics]]
name = "m"
outcome = "x"
role = "primary"
[allocation]
policy = "lin_ts"
metric = "m"
"""


def test_the_conversion_experiment_of_the_docs() -> None:
    plan = read_plan(EXAMPLES / "conversion.toml", NOW)
    roles = {metric.name: metric.role for metric in plan.metrics}
    assert (roles["conversion"], roles["page-seconds"]) == (Role.PRIMARY, Role.GUARDRAIL)
    assert plan.metrics[0].covariate_days == 14
    assert plan.layer == Layer(name="checkout", low=0.0, high=0.6)
    assert plan.targeting[1].value == ["2.10", None]
    assert ([step.share for step in plan.ramp], plan.created) == ([0.1, 1.0], NOW)


def test_the_contextual_bandit_of_the_docs() -> None:
    plan = read_plan(EXAMPLES / "contextual-bandit.toml", NOW)
    assert plan.allocation is not None
    assert (plan.unit, plan.allocation.policy, plan.allocation.metric) == (Unit.REQUEST, Policy.LIN_TS, "margin")
    assert plan.allocation.features == {"basket.value": (0.0, 300.0), "hour": (0.0, 24.0)}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[[metrics]]\nname = "m"\noutcme = "x"', r"`outcme`.*\$\.metrics\[0\].*The keys there are name, outcome, kind, role"),
        ('[[metrics]]\nname = "m"\noutcome = "x"\nkind = "men"', r"\$\.metrics\[0\]\.kind.*Write one of mean, proportion, ratio, quantile"),
        (
            '[[metrics]]\nname = "m"\noutcome = "x"\n[metrics.denominator]\nname = 3',
            r"denominator.*The keys there are outcome, aggregation",
        ),
        ("[[ramp]]\nat = 2026-01-01T00:00:00\nshare = 0.1", r"\$\.ramp\[0\]\.at.*Write the time with its zone"),
        ("[analysis.prior]\nmen = 0", r"`men`.*The keys there are mean, variance"),
        ('[analysis]\nrule = "often"', r"\$\.analysis\.rule.*Write one of always_valid, msprt, group_sequential, fixed, bayesian"),
        ("[analysis.looks]\nunit = 3", r"`unit`.*The keys there are units, fractions, spending"),
        ('[analysis.looks]\nunits = 3\nspending = "late"', r"\$\.analysis\.looks\.spending.*Write one of obrien_fleming, pocock"),
        ('[layer]\nname = "l"\nlow = 2', r"<= 1.*\$\.layer\.low`\. There stands 2"),
        ('[allocation]\npolicy = "best"\nmetric = "m"', r"\$\.allocation\.policy.*Write one of thompson, ucb"),
        (f"{CONTEXTUAL}features = ['hour']", r"\$\.allocation\.features.*Give each feature its range"),
        (f"{CONTEXTUAL}[allocation.features]\nhour = [0]", r"\$\.allocation\.features.*Give each feature its range"),
        (f"{CONTEXTUAL}[allocation.features]\nbasket.value = [0, 9]", r"\$\.allocation\.features.*in quotes where it has a dot"),
        ('[[metrics]]\nname = "m"\noutcome = "x"', r"`metrics`: none of them is primary"),
    ],
)
def test_what_is_wrong_in_a_part_is_named_with_what_may_stand_there(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s)experiment.toml.*{said}"):
        read_plan(write(tmp_path, f"{EXAMPLE}\n{more}\n"), NOW)

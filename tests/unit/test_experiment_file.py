"""An experiment's TOML file: what it may say, and what is said about what it may not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from millrace.schemas.errors import UsageError
from millrace.schemas.experiment import Condition, State, Test, Variant
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
        ('name = "checkout"', 'name = "check out"', r"\$\.name"),
        ("sample = 0.5", "sample = 1.5", r"<= 1.*\$\.sample"),
        ("weight = 3", "weight = -1", r">= 0.*\$\.variants\[0\]\.weight"),
        ("weight = 3", "wait = 3", r"unknown field `wait`.*\$\.variants\[0\].*a variant has name, weight, model, parameters"),
        ("owner =", "ownr =", r"unknown field `ownr`.*The keys are name, variants"),
        ('test = "range"', 'test = "between"', r"Invalid enum value 'between'.*\$\.targeting\[0\]\.test"),
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

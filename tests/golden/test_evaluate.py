"""Published numbers through ``millrace experiments evaluate``: the judge as a calculator gives them to their digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from millrace.workers.cli import app

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "statistics.json").read_text())
ROWS = [(row, name) for row in GOLDEN["two_sample"] for name in ("relative", "absolute") if name in row]


def answered(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What the command writes."""
    file = folder / "question.json"
    file.write_text(json.dumps(question))
    result = CliRunner().invoke(app, ["experiments", "evaluate", str(file), "--json"])
    assert result.exit_code == 0, result.output
    answer: dict[str, Any] = json.loads(result.stdout)
    return answer


def within(value: Any, digits: int = 9) -> Any:
    """As published, to half a unit of the last digit that all of its numbers have."""
    return pytest.approx(value, abs=0.6 * 10.0**-digits)


@pytest.mark.parametrize(("row", "name"), ROWS, ids=[f"{row['kind']}-{name}" for row, name in ROWS])
def test_two_samples(tmp_path: Path, row: dict[str, Any], name: str) -> None:
    answer = answered(tmp_path, {"kind": row["kind"], "difference": name, "control": row["control"], "treatment": row["treatment"]})
    digits = 8 if len(repr(row[name]["p_value"])) > 9 else 5
    for field, value in row[name].items():
        assert answer[field] == within(value, digits), field


def test_the_always_valid_row(tmp_path: Path) -> None:
    row, wanted = GOLDEN["two_sample"][0], GOLDEN["always_valid"]
    answer = answered(
        tmp_path,
        {
            "kind": "mean",
            "difference": "absolute",
            "alpha": wanted["alpha"],
            "tuning": wanted["tuning"],
            "prior": None,
            "control": row["control"],
            "treatment": row["treatment"],
        },
    )
    assert answer["always_valid"]["interval"] == within(wanted["interval"])
    assert answer["always_valid"]["p_value"] == within(wanted["p_value"])


def test_the_bayesian_row(tmp_path: Path) -> None:
    wanted = GOLDEN["bayesian"]
    arms = [{"n": n, "total": hits} for hits, n in (wanted["control"], wanted["treatment"])]
    answer = answered(tmp_path, {"kind": "proportion", "difference": "relative", "control": arms[0], "treatment": arms[1]})
    for field in ("lift", "std", "interval", "chance_to_win", "risk"):
        assert answer["bayesian"][field] == within(wanted[field]), field


@pytest.mark.parametrize("row", GOLDEN["sample_ratio"]["pearson"], ids=str)
def test_the_sample_ratio(tmp_path: Path, row: dict[str, Any]) -> None:
    arm = {"n": 10, "total": 5}
    question = {
        "kind": "proportion",
        "difference": "absolute",
        "control": arm,
        "treatment": arm,
        "counts": row["counts"],
        "weights": [1, 1],
    }
    assert answered(tmp_path, question)["sample_ratio"] == {"p_value": within(row["p_value"])}


def test_what_comes_out_is_what_was_promised(tmp_path: Path) -> None:
    arm = {"n": 100, "total": 50, "squares": 60}
    answer = answered(tmp_path, {"kind": "mean", "difference": "relative", "control": arm, "treatment": arm})
    assert list(answer) == ["effect", "std_error", "interval", "p_value", "always_valid", "bayesian", "cohens_d", "sample_ratio"]
    assert answer["sample_ratio"] is None
    assert list(answer["always_valid"]) == ["interval", "p_value"]
    assert list(answer["bayesian"]) == ["lift", "std", "interval", "chance_to_win", "risk"]

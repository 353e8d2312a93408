"""Numbers that others published, from their sums to their digits. ``statistics.json`` names who computed them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millrace.schemas.evidence import CannotTell, Kind
from millrace.schemas.experiment import Correction
from millrace.streams.stats import cuped, multiple, sample_ratio
from millrace.streams.stats.bayesian import posterior
from millrace.streams.stats.compare import difference
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.interval import fixed
from millrace.streams.stats.summary import Summary, Totals, of_totals

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "statistics.json").read_text())
NAMES = {"numerator_total": "total", "numerator_squares": "squares"}
ROWS = [(row, name) for row in GOLDEN["two_sample"] for name in ("relative", "absolute") if name in row]


def summary(sums: dict[str, float]) -> Summary:
    return of_totals(Totals(**{NAMES.get(name, name): value for name, value in sums.items()}))  # type: ignore[arg-type]


def digits(value: float) -> int:
    """After the point, as it was published."""
    return len(repr(value).partition(".")[2])


def same(ours: float, theirs: float, units: float = 0.5) -> bool:
    """Whether they are the same to so many units of the last digit that was published."""
    return abs(ours - theirs) <= (units + 1e-4) * 10.0 ** -digits(theirs)


def told(effect: Effect | CannotTell) -> Effect:
    if isinstance(effect, CannotTell):
        pytest.fail(effect.reason)
    return effect


def agrees(effect: Effect | CannotTell, expected: dict[str, Any]) -> None:
    """Every number that ``expected`` has, to its digits.

    An interval to three units of the last digit: the ends published for the first row are not as far from its effect as each other in
    the tenth digit (0.7425771623 and 0.7425771620), though the interval is symmetric; ours agrees with the lower one.
    """
    known = told(effect)
    judged = fixed(known, 0.05)
    ours = {"effect": known.effect, "std_error": known.std_error, "p_value": judged.p_value}
    assert [name for name, value in expected.items() if name != "interval" and not same(ours[name], value)] == []
    if "interval" in expected:
        assert [pair for pair in zip(judged.interval, expected["interval"], strict=True) if not same(*pair, units=3)] == []


@pytest.mark.parametrize(("row", "name"), ROWS, ids=[f"{row['kind']}-{name}" for row, name in ROWS])
def test_two_arms_differ_as_published(row: dict[str, Any], name: str) -> None:
    agrees(difference(summary(row["control"]), summary(row["treatment"]), Kind(row["kind"]), Difference(name)), row[name])


def arms_with_a_covariate() -> tuple[Summary, Summary]:
    """Drawn in the order that the file says."""
    rng = np.random.default_rng(42)
    before_t, before_c = rng.normal(10, 3, 1000), rng.normal(10, 3, 1000)
    treatment, control = 2 * before_t + rng.normal(0.5, 1, 1000), 2 * before_c + rng.normal(0, 1, 1000)
    return _of(control, before_c), _of(treatment, before_t)


def _of(y: Any, x: Any) -> Summary:
    return of_totals(
        Totals(
            n=len(y),
            total=float(y.sum()),
            squares=float(y @ y),
            covariate_total=float(x.sum()),
            covariate_squares=float(x @ x),
            covariate_cross=float(x @ y),
        )
    )


def test_a_covariate_narrows_as_published() -> None:
    control, treatment = arms_with_a_covariate()
    assert same(cuped.theta(control, treatment), GOLDEN["cuped"]["theta"])
    agrees(difference(control, treatment, Kind.MEAN, Difference.ABSOLUTE, adjust=True), GOLDEN["cuped"]["absolute"])
    agrees(difference(control, treatment, Kind.MEAN, Difference.ABSOLUTE), GOLDEN["cuped"]["without"])


def test_the_posterior_is_as_published() -> None:
    golden = GOLDEN["bayesian"]
    control, treatment = (summary({"total": total, "n": n}) for total, n in (golden["control"], golden["treatment"]))
    known = posterior(told(difference(control, treatment, Kind(golden["kind"]), Difference.RELATIVE)))
    assert same(known.lift, golden["lift"])
    assert same(known.std, golden["std"])
    assert same(known.chance_to_win, golden["chance_to_win"])
    assert all(map(same, known.interval, golden["interval"]))
    assert all(map(same, (known.risk.control, known.risk.treatment), golden["risk"]))


@pytest.mark.parametrize("row", GOLDEN["sample_ratio"]["pearson"], ids=lambda row: str(row["counts"]))
def test_the_sample_ratio_is_as_published(row: dict[str, Any]) -> None:
    known = sample_ratio.pearson(row["counts"], [0.5, 0.5])
    assert isinstance(known, sample_ratio.SampleRatio)
    assert same(known.p_value, row["p_value"])


@pytest.mark.parametrize("name", ["holm", "benjamini_hochberg"])
def test_corrected_p_values_are_as_published(name: str) -> None:
    golden = GOLDEN["multiple"][name]
    ours = multiple.corrected(golden["p"], Correction(name))
    assert ours == pytest.approx(golden["adjusted"], rel=0, abs=1e-15)

"""Do the sequential statistics give the published digits?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from millrace.streams.stats import msprt, sequence, sequential_ratio
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.group_sequential import Spending, boundaries, classical, crossing
from millrace.streams.stats.summary import Totals, of_totals

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "statistics.json").read_text())
FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def absolute(row: dict[str, Any]) -> Effect:
    control, treatment = (of_totals(Totals(**row[arm])) for arm in ("control", "treatment"))
    return Effect(
        effect=treatment.mean - control.mean,
        std_error=math.sqrt(control.variance / control.n + treatment.variance / treatment.n),
        n=control.n + treatment.n,
        degrees=math.inf,
        control_mean=control.mean,
        treatment_mean=treatment.mean,
        difference=Difference.ABSOLUTE,
    )


def test_the_confidence_sequence_has_its_ten_digits() -> None:
    golden, effect = GOLDEN["always_valid"], absolute(GOLDEN["two_sample"][0])
    alpha, tuning = golden["alpha"], golden["tuning"]
    found = sequence.always_valid(effect, alpha, tuning)
    assert isinstance(found, sequence.AlwaysValid)
    assert sequence.rho(alpha, tuning) == pytest.approx(golden["rho"], abs=5.1e-11)
    assert sequence.half_width(effect.std_error, effect.n, alpha, tuning) == pytest.approx(golden["half_width"], abs=5.1e-11)
    assert found.interval == pytest.approx(golden["interval"], abs=5.1e-11)
    assert found.p_value == pytest.approx(golden["p_value"], abs=5.1e-11)


def test_its_width_over_the_fixed_interval() -> None:
    golden = GOLDEN["always_valid"]
    widths = {
        n: sequence.half_width(1.0, int(n), golden["alpha"], golden["tuning"]) / 1.959963984540054 for n in golden["width_over_fixed"]
    }
    # 20,000 units: 1.595496, published as 1.596 after rounding twice
    assert widths == pytest.approx(golden["width_over_fixed"], abs=5.1e-4)


def test_the_mixture_test_has_its_ten_digits() -> None:
    golden = GOLDEN["msprt"]
    effect = Effect(
        effect=golden["difference"],
        std_error=golden["sigma"] * math.sqrt(2 / golden["n_per_arm"]),
        n=2 * golden["n_per_arm"],
        degrees=math.inf,
        control_mean=0.0,
        treatment_mean=golden["difference"],
        difference=Difference.ABSOLUTE,
    )
    found = msprt.log_evalue(effect, golden["tau"])
    assert isinstance(found, float)
    assert msprt.p_value(found) == pytest.approx(golden["p_value"], abs=5.1e-11)


def test_the_sequential_sample_ratio_after_each_batch() -> None:
    golden = GOLDEN["sample_ratio"]["sequential"]
    maximum, counts, after = -math.inf, [0, 0], {}
    for batch in range(1, 31):
        counts = [count + more for count, more in zip(counts, [50, 50] if batch <= 10 else [40, 60], strict=True)]
        maximum = max(maximum, sequential_ratio.log_bayes_factor(counts, golden["intended"], golden["prior_concentration"]))
        after[str(batch)] = sequential_ratio.p_value(maximum)
    assert {batch: after[batch] for batch in golden["p_after"]} == pytest.approx(golden["p_after"], abs=5.1e-7)


@pytest.mark.parametrize(
    ("looks", "pocock", "final"),
    [(1, 1.960, 1.960), (2, 2.178, 1.977), (3, 2.289, 2.004), (4, 2.361, 2.024), (5, 2.413, 2.040), (10, 2.555, 2.087)],
)
def test_the_constants_of_jennison_and_turnbull_tables_2_1_and_2_3(looks: int, pocock: float, final: float) -> None:
    fractions = [(look + 1) / looks for look in range(looks)]
    assert classical(fractions, 0.05, Spending.POCOCK) == pytest.approx([pocock] * looks, abs=5.1e-4)
    assert classical(fractions, 0.05, Spending.OBRIEN_FLEMING)[-1] == pytest.approx(final, abs=5.1e-4)


def test_the_boundaries_of_five_looks() -> None:
    assert classical(FIFTHS, 0.05, Spending.OBRIEN_FLEMING) == pytest.approx([4.562, 3.226, 2.634, 2.281, 2.040], abs=5.1e-4)
    assert boundaries(FIFTHS, 0.05, Spending.OBRIEN_FLEMING) == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=5.1e-4)
    assert boundaries(FIFTHS, 0.05, Spending.POCOCK) == pytest.approx([2.438, 2.427, 2.410, 2.397, 2.386], abs=5.1e-4)


def test_the_inflation_of_five_looks_gives_its_power() -> None:
    # Jennison and Turnbull 2000, tables 2.2 and 2.4: 90 % power at alpha = 0.05 needs 1.207 (Pocock) or 1.026 times the units
    fixed = 1.959964 + 1.281552
    for shape, inflation in ((Spending.POCOCK, 1.207), (Spending.OBRIEN_FLEMING, 1.026)):
        chances = crossing(FIFTHS, classical(FIFTHS, 0.05, shape), fixed * math.sqrt(inflation))
        assert chances.sum() == pytest.approx(0.9, abs=2e-4)

"""Whatever order units come in and however they are split over partitions: the same evidence, to the last bit."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

from hypothesis import given
from hypothesis import strategies as st

from millrace.schemas.evidence import Moments
from millrace.streams.stats import msprt
from millrace.streams.stats.effect import Difference, Effect
from millrace.streams.stats.sequence import Side, always_valid, one_sided
from millrace.streams.stats.sequential_ratio import log_bayes_factor
from millrace.streams.stats.summary import of_moments

UNITS = st.lists(st.tuples(st.booleans(), st.integers(-(10**9), 10**9)), min_size=4, max_size=40)


def evidence(units: list[tuple[bool, int]], cuts: int) -> tuple[object, ...]:
    """All that the sequential tests say of the units, folded in ``cuts`` partitions."""
    parts = [
        [reduce(add, (Moments.of(y) for arm, y in units[cut::cuts] if arm is side), Moments()) for cut in range(cuts)]
        for side in (False, True)
    ]
    control, treatment = (of_moments(reduce(add, part), 0.01) for part in parts)
    effect = Effect(
        effect=treatment.mean - control.mean,
        std_error=math.sqrt(control.variance / max(1, control.n) + treatment.variance / max(1, treatment.n)),
        n=control.n + treatment.n,
        degrees=math.inf,
        control_mean=control.mean,
        treatment_mean=treatment.mean,
        difference=Difference.ABSOLUTE,
    )
    ratio = log_bayes_factor([control.n, treatment.n], [1, 1])
    return always_valid(effect), one_sided(effect, Side.UPPER, -1.0), msprt.log_evalue(effect, 0.1), ratio


@given(UNITS, st.data(), st.integers(1, 5))
def test_evidence_is_a_function_of_the_set_of_units(units: list[tuple[bool, int]], data: st.DataObject, cuts: int) -> None:
    other = data.draw(st.permutations(units))
    assert evidence(other, cuts) == evidence(units, 1)

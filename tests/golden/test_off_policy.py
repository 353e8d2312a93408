"""A log that others have published estimates of: is the value of another policy theirs, to the digits of a double?"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from millrace.schemas.evidence import CannotTell
from millrace.streams.off_policy.estimate import ips, snips
from millrace.streams.off_policy.log import Logged, of_records
from millrace.streams.off_policy.overlap import Terms

FOLDER = Path(__file__).parent
PUBLISHED = json.loads((FOLDER / "learning.json").read_text())["off_policy"]["uniform_policy_from_bts_log"]["men"]
ITEMS = 34
"""What the uniform policy chooses between, each of them with the same chance."""


def log() -> Logged:
    """The rounds one by one."""
    lines = [line for line in (FOLDER / "open_bandit_men.csv").read_text().splitlines() if not line.startswith("#")]
    clicks, propensities = [], []
    for row in csv.DictReader(lines):
        rounds, clicked = int(row["rounds"]), int(row["clicks"])
        clicks += [1.0] * clicked + [0.0] * (rounds - clicked)
        propensities += [float(row["propensity"])] * rounds
    return of_records(clicks, propensities, np.full(len(clicks), 1 / ITEMS))


def test_the_log_is_whole() -> None:
    assert log().n == 10_000
    assert log().means.sum() == 69


@pytest.mark.parametrize(("estimator", "name"), [(ips, "ipw"), (snips, "snipw")], ids=["ips", "snips"])
def test_what_a_uniform_policy_would_have_earned(estimator: type, name: str) -> None:
    found = estimator(log(), Terms())
    assert not isinstance(found, CannotTell)
    assert found.value == pytest.approx(PUBLISHED[name], rel=1e-14)
    assert found.interval[0] < PUBLISHED[name] < found.interval[1]
    assert found.overlap.effective_size == pytest.approx(655.7, abs=0.05), "ten thousand rounds are worth no more than these"


def test_a_log_that_overlaps_too_little_is_refused() -> None:
    found = ips(log(), Terms(least_effective=1_000))
    assert isinstance(found, CannotTell)
    assert "effective" in found.reason

"""The experiment that docs/experiments.md shows the batch answer of."""

from __future__ import annotations

from millrace.infra.clickhouse.experiments.as_of import AsOf, Ends
from millrace.schemas.experiment import Variant
from tests.contract.experiments.scenario import metric, plan

ENDS = (Ends(0, 120_000, 480_000), Ends(1, 118_000, 475_000))
REVENUE = metric("revenue", outcome="revenue", resolution=0.01, cap=500.0, covariate_days=14, window_seconds=7 * 86_400.0)
PLAN = plan(REVENUE, variants=(Variant(name="control"), Variant(name="challenger")))
AS_OF = AsOf(PLAN, "mVVqXJ2yTTOBi8Ss9cSdBw", "V2xkq8TjQhGzVY0q3mXn5A", ENDS)

"""The mixture SPRT as the judge asks it: which effects are plausible, this look's evidence, and the largest so far.

Source: Johari, Koomen, Pekelis and Walsh, arXiv 1512.04922. Evidence of another mixture does not count on: the largest of two would be
two tests at one level.
"""

from __future__ import annotations

import math

from msgspec import Struct

from millrace.schemas.evidence import CannotTell
from millrace.schemas.result import LargestEvidence, MixtureEvidence
from millrace.streams.judge.past import Largest
from millrace.streams.stats import msprt
from millrace.streams.stats.effect import Difference, Effect


class Mixture(Struct, frozen=True):
    """Plausible effects are N(0, tau^2). Without a tau they are those of the confidence sequence: rho standard deviations of one unit.

    The standard deviation is then estimated, std_error sqrt(n), so that it holds asymptotically (arXiv 2103.06476), and the e-value is the
    confidence sequence's own.
    """

    difference: Difference
    tau: float | None
    rho: float

    @property
    def name(self) -> str:
        """What it is known by: two of one name are the same."""
        return f"{self.difference} rho {self.rho!r}" if self.tau is None else f"{self.difference} tau {self.tau!r}"

    def tau_for(self, effect: Effect) -> float:
        """The standard deviation of plausible effects, in the effect's units."""
        return self.rho * effect.std_error * math.sqrt(effect.n) if self.tau is None else self.tau

    def largest(self, effect: Effect, before: Largest | None) -> Largest | CannotTell:
        """The largest evidence after this look: that of before, where it is of this mixture and not below this look's."""
        now = msprt.log_evalue(effect, self.tau_for(effect))
        return now if isinstance(now, CannotTell) else self._largest(effect, now, before)

    def _largest(self, effect: Effect, now: float, before: Largest | None) -> Largest:
        if before is not None and before.mixture == self.name and before.log_evalue >= now:
            return before
        return Largest(self.name, now, effect.effect)

    def evidence(self, effect: Effect, before: Largest | None, level: float, adjusted: float | None) -> MixtureEvidence | CannotTell:
        """What it says of an effect, and of all looks so far; ``adjusted`` is the p-value of these, corrected for the family."""
        tau = self.tau_for(effect)
        now = msprt.log_evalue(effect, tau)
        if isinstance(now, CannotTell):
            return now
        most = self._largest(effect, now, before)
        half = msprt.half_width(effect.std_error, level, tau)
        p = msprt.p_value(most.log_evalue)
        return MixtureEvidence(
            tau=tau,
            log_evalue=now,
            interval=(effect.effect - half, effect.effect + half),
            so_far=LargestEvidence(log_evalue=most.log_evalue, effect=most.effect, p_value=p, adjusted_p_value=adjusted),
        )

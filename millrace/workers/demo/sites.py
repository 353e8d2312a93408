"""The demo's data: 1250 web sites, nine features each, and whether they turned out to be phishing. It ships inside river.

Source: R. M. Mohammad et al., UCI Website Phishing data set, as ``river.datasets.Phishing``.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

TRAINING_SITES = 500
"""The models learn from the first part; only the rest is ever served."""


class Site(Struct, frozen=True):
    """One web site: its number in the data, its features by name, and whether it is phishing."""

    number: int
    features: dict[str, float]
    phishing: bool

    @property
    def name(self) -> str:
        """What it is called as a unit.

        >>> Site(7, {}, True).name
        'site-0007'
        """
        return f"site-{self.number:04d}"


def load() -> list[Site]:
    """All sites, in the order of the data."""
    from river.datasets import Phishing

    return [Site(number, _numbers(row), bool(label)) for number, (row, label) in enumerate(Phishing())]


def split(sites: Sequence[Site]) -> tuple[Sequence[Site], Sequence[Site]]:
    """The part that models are trained on, and the part that is served."""
    return sites[:TRAINING_SITES], sites[TRAINING_SITES:]


def _numbers(row: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}

"""The sums of an experiment's arms, changed by whole units: what one poll changes is gathered, and added to what is stored at its end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from millrace.schemas.evidence import Moments
from millrace.schemas.moments import FEATURES, Arm, Sums, from_gram_sums, from_sums, gram_sums, to_sums
from millrace.schemas.policy_state import Gram
from millrace.streams.experiment.definition import Contribution
from millrace.streams.experiment.subject import Coding
from millrace.streams.step import Store

MOMENTS, ARMS = b"m", b"a"
COUNTS = ("assigned", "exposed", "multiple", "overridden", "assignments", "underived", "outcomes", "late", "duplicates")
ASSIGNED, EXPOSED, MULTIPLE, OVERRIDDEN, ASSIGNMENTS, UNDERIVED, OUTCOMES, LATE, DUPLICATES = range(len(COUNTS))
_SUMS: Coding[dict[str, Sums]] = Coding(dict[str, Sums])
_ARMS: Coding[dict[str, Arm]] = Coding(dict[str, Arm])
_NOTHING = Moments()


class Tally:
    """The changes of one poll."""

    def __init__(self) -> None:
        self._moments: dict[tuple[str, str], dict[str, Moments]] = {}
        self._grams: dict[tuple[str, str], dict[str, Gram]] = {}
        self._counts: dict[str, dict[str, list[int]]] = {}
        self._segments: dict[str, dict[str, dict[str, int]]] = {}

    def counts(self, experiment: str, variant: str) -> list[int]:
        """An arm's changes, in the order of ``COUNTS``: add to them."""
        arms = self._counts.setdefault(experiment, {})
        counts = arms.get(variant)
        if counts is None:
            counts = arms[variant] = [0] * len(COUNTS)
        return counts

    def segment(self, experiment: str, variant: str, segments: Iterable[str], change: int) -> None:
        """One unit more or less in each of these segments."""
        found = self._segments.setdefault(experiment, {}).setdefault(variant, {})
        for name in segments:
            found[name] = found.get(name, 0) + change

    def move(self, place: tuple[str, str], labels: Iterable[str], old: Contribution | None, new: Contribution | None) -> None:
        """Retract what a unit added to a metric, ``(experiment, metric)``, and add what it adds now."""
        change = (Moments.of(*new) if new is not None else _NOTHING) - (Moments.of(*old) if old is not None else _NOTHING)
        sums = self._moments.setdefault(place, {})
        for label in labels:
            known = sums.get(label)
            sums[label] = change if known is None else known + change

    def regress(
        self, place: tuple[str, str], variant: str, steps: Sequence[int], change: tuple[Contribution | None, Contribution | None]
    ) -> None:
        """The same for a reward's sums over features: retract what a request at these steps added, the first, and add the second."""
        zero = Gram.zero(len(steps))
        old, new = [zero if one is None else Gram.of(steps, one[0]) for one in change]
        grams = self._grams.setdefault(place, {})
        grams[variant] = grams.get(variant, zero) + new - old

    def save(self, store: Store) -> Iterator[tuple[str, str | None]]:
        """Add the changes to what is stored; the experiment and metric of each that changed, None for arms."""
        for (experiment, metric), changes in self._moments.items():
            changed = {label: moments for label, moments in changes.items() if moments != _NOTHING}
            summed = self._grams.get((experiment, metric), {})
            grams = {name: gram for name, gram in summed.items() if any(gram.products) or any(gram.rewards)}
            if changed or grams:
                self._save_moments((experiment, metric), changed, grams, store)
                yield experiment, metric
        for experiment in sorted(self._counts.keys() | self._segments.keys()):
            if self._save_arms(experiment, store):
                yield experiment, None

    def _save_moments(self, place: tuple[str, str], changes: dict[str, Moments], grams: dict[str, Gram], store: Store) -> None:
        """An arm without units is left out: whether there ever was one must not show."""
        sums = moments_of(*place, store)
        for label, change in changes.items():
            total = (from_sums(sums[label]) if label in sums else _NOTHING) + change
            _put(sums, label, to_sums(total) if total.n else None)
        for variant, gram in grams.items():
            label = variant + FEATURES
            learnt = from_gram_sums(sums[label]) + gram if label in sums else gram
            _put(sums, label, gram_sums(learnt) if learnt.n else None)
        store.put(_moments_key(*place), _SUMS.encode(dict(sorted(sums.items()))))

    def _save_arms(self, experiment: str, store: Store) -> bool:
        arms = arms_of(experiment, store)
        before = dict(arms)
        counts, segments = self._counts.get(experiment, {}), self._segments.get(experiment, {})
        for variant in sorted(counts.keys() | segments.keys()):
            arm = _added(arms.get(variant, Arm()), counts.get(variant, [0] * len(COUNTS)), segments.get(variant, {}))
            if arm != Arm():
                arms[variant] = arm
        if arms == before:
            return False
        store.put(_arms_key(experiment), _ARMS.encode(dict(sorted(arms.items()))))
        return True


def moments_of(experiment: str, metric: str, store: Store) -> dict[str, Sums]:
    """The stored moments of a metric, by variant, and by ``variant|field=value``; sums over features by ``variant#features``."""
    stored = store.get(_moments_key(experiment, metric))
    return _SUMS.decode(stored) if stored is not None else {}


def arms_of(experiment: str, store: Store) -> dict[str, Arm]:
    """The stored arms of an experiment."""
    stored = store.get(_arms_key(experiment))
    return _ARMS.decode(stored) if stored is not None else {}


def _put(sums: dict[str, Sums], label: str, total: Sums | None) -> None:
    if total is not None:
        sums[label] = total
    else:
        sums.pop(label, None)


def _added(arm: Arm, counts: list[int], segments: dict[str, int]) -> Arm:
    """An arm with changes; segments without units are left out."""
    totals = {name: getattr(arm, name) + count for name, count in zip(COUNTS, counts, strict=True)}
    units = {name: arm.segments.get(name, 0) + segments.get(name, 0) for name in sorted(arm.segments.keys() | segments.keys())}
    return msgspec.structs.replace(arm, **totals, segments={name: count for name, count in units.items() if count})


def _moments_key(experiment: str, metric: str) -> bytes:
    """Neither name has a slash."""
    return MOMENTS + f"{experiment}/{metric}".encode()


def _arms_key(experiment: str) -> bytes:
    return ARMS + experiment.encode()

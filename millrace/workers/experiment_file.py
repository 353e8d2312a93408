"""An experiment's plan as a person writes it: a TOML file."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec
from msgspec import Meta, Struct

from millrace.schemas.errors import Never, UsageError
from millrace.schemas.experiment import (
    Allocation,
    Analysis,
    Condition,
    Layer,
    Looks,
    NormalPrior,
    Plan,
    RampStep,
    Share,
    State,
    Test,
    Unit,
    Variant,
    Word,
)
from millrace.schemas.metric import Metric, Source
from millrace.streams.plan_check import check

EXAMPLE = """\
name = "checkout"
hypothesis = "the new model approves more good orders"

[[variants]]
name = "control"
model = "approve"

[[variants]]
name = "challenger"
model = "approve-next"
"""
FEATURES = 'Give each feature its range under [allocation.features], its name in quotes where it has a dot: "basket.value" = [0, 500]'
REMEDIES = (
    ("timezone|RFC3339", "Write the time with its zone and without quotes, such as 2026-05-01T08:00:00Z."),
    (r"\$\.allocation\.features", FEATURES),
    (r"\$\.segments", 'Give each field the values that are told apart, as text: country = ["DE", "FR"]'),
    ("matching regex", "Write letters, digits, dots, dashes and underscores, 128 at most, and begin with a letter or digit."),
)
"""What to write where an error of the decoder would not say it: a pattern of the error, and the remedy; the first that fits."""
PARTS: tuple[tuple[str, type[Struct]], ...] = (
    (r"\$\.metrics\[\d+\]\.denominator", Source),
    (r"\$\.analysis\.prior", NormalPrior),
    (r"\$\.analysis\.looks", Looks),
    (r"\$\.variants", Variant),
    (r"\$\.metrics", Metric),
    (r"\$\.targeting", Condition),
    (r"\$\.ramp", RampStep),
    (r"\$\.layer", Layer),
    (r"\$\.allocation", Allocation),
    (r"\$\.analysis", Analysis),
)
"""Where in the file which part stands: the innermost first."""


class ExperimentFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the file; what is left out has a default. Variants without a weight share alike."""

    name: Word
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)]
    salt: str = ""
    """What the hashes are salted with; the name, if left out."""
    owner: str = ""
    hypothesis: str = ""
    unit: Unit = Unit.UNIT
    layer: Layer | None = None
    holdout: Share = 0.0
    sample: Share = 1.0
    ramp: tuple[RampStep, ...] = ()
    target_units: tuple[str, ...] = ()
    targeting: tuple[Condition, ...] = ()
    overrides: dict[str, str] = {}
    models: tuple[Word, ...] = ()
    allocation: Allocation | None = None
    metrics: tuple[Metric, ...] = ()
    segments: dict[str, tuple[str, ...]] = {}
    analysis: Analysis = Analysis()


def read_plan(path: Path, now: datetime) -> Plan:
    """The file as version 1 of a plan, a draft. Raises UsageError naming the field and what to do about it."""
    file = _convert(path, _load(path))
    told = {name: getattr(file, name) for name in ExperimentFile.__struct_fields__}
    told |= {"salt": file.salt or file.name, "targeting": tuple(map(_open_ended, file.targeting))}
    plan = Plan(**told, version=1, state=State.DRAFT, time=now, created=now)
    try:
        check(plan)
    except Never as error:
        raise UsageError(f"{path}: {error}") from None
    return plan


def _open_ended(condition: Condition) -> Condition:
    """TOML has no null: an end that is left open is written ``inf`` or ``-inf``, and of versions ``""`` too."""
    if condition.test not in (Test.RANGE, Test.VERSION) or not isinstance(condition.value, list):
        return condition
    ends = [None if _is_open(end) else end for end in condition.value]
    return msgspec.structs.replace(condition, value=ends)


def _is_open(end: object) -> bool:
    return end == "" or (isinstance(end, float) and math.isinf(end))


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}. Text stands in quotes. A whole file looks like this:\n{EXAMPLE}") from None


def _convert(path: Path, tree: dict[str, Any]) -> ExperimentFile:
    try:
        return msgspec.convert(tree, ExperimentFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}. {_remedy(str(error), tree)}") from None


def _remedy(error: str, tree: dict[str, Any]) -> str:
    """What to write there; of a wrong key, which there are."""
    for told, remedy in REMEDIES:
        if re.search(told, error):
            return remedy
    part = next((part for pattern, part in PARTS if re.search(pattern, error)), ExperimentFile)
    if "enum value" in error and (named := re.search(r"([a-z_]+)`$", error)) is not None:
        return f"Write one of {', '.join(get_type_hints(part)[named[1]])}."
    if not re.search("(unknown|required) field", error):
        return f"There stands {_at(tree, error)!r}."
    meant = _meant(error, part)
    return f"{meant}The keys {'are' if part is ExperimentFile else 'there are'} {', '.join(part.__struct_fields__)}."


def _meant(error: str, part: type[Struct]) -> str:
    """The key that an unknown one looks like."""
    unknown = re.search(r"unknown field `(.+?)`", error)
    alike = difflib.get_close_matches(unknown[1], part.__struct_fields__, n=1) if unknown is not None else []
    return f"Did you mean {alike[0]}? " if alike else ""


def _at(tree: Any, error: str) -> Any:
    """What stands in the file where an error says that it went wrong."""
    place = re.search(r"`\$(.*)`$", error)
    for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", place[1] if place is not None else ""):
        tree = tree[name] if name else tree[int(number)]
    return tree

"""An experiment's plan as a person writes it: a TOML file."""

from __future__ import annotations

import math
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from millrace.schemas.errors import Never, UsageError
from millrace.schemas.experiment import Condition, Plan, Share, State, Test, Variant, Word
from millrace.streams.assign import check

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


class ExperimentFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of the file; what is left out has a default. Variants without a weight share alike."""

    name: Word
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)]
    salt: str = ""
    """What the hashes are salted with; the name, if left out."""
    sample: Share = 1.0
    targeting: tuple[Condition, ...] = ()
    overrides: dict[str, str] = {}
    models: tuple[Word, ...] = ()
    owner: str = ""
    hypothesis: str = ""


def read_plan(path: Path, now: datetime) -> Plan:
    """The file as version 1 of a plan, a draft. Raises UsageError naming the field and what to do about it."""
    file = _convert(path, _load(path))
    plan = Plan(
        **msgspec.structs.asdict(file) | {"salt": file.salt or file.name, "targeting": tuple(map(_open_ended, file.targeting))},
        version=1,
        state=State.DRAFT,
        time=now,
    )
    try:
        check(plan)
    except Never as error:
        raise UsageError(f"{path}: {error}") from None
    return plan


def _open_ended(condition: Condition) -> Condition:
    """TOML has no null: an end of a range that is left open is written ``inf`` or ``-inf``."""
    if condition.test is not Test.RANGE or not isinstance(condition.value, list):
        return condition
    ends = [None if isinstance(end, float) and math.isinf(end) else end for end in condition.value]
    return msgspec.structs.replace(condition, value=ends)


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}. A whole file looks like this:\n{EXAMPLE}") from None


def _convert(path: Path, tree: dict[str, Any]) -> ExperimentFile:
    try:
        return msgspec.convert(tree, ExperimentFile)
    except msgspec.ValidationError as error:
        known = ", ".join(ExperimentFile.__struct_fields__)
        raise UsageError(f"{path}: {error}. The keys are {known}; a variant has name, weight, model, parameters.") from None

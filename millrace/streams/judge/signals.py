"""What a result tells at once: harm, health that allows no conclusion, a decision that changed. Each once, not at every look."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from msgspec import Struct

from millrace.schemas import wire
from millrace.schemas.result import Decision, Harm, Result, Severity, Verdict
from millrace.schemas.signal import Signal, SignalKind


class Heard(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was told before: guardrails breached, health that is invalid, the last decision, and why a policy could not be computed."""

    breached: tuple[str, ...] = ()
    invalid: dict[str, str] = {}
    verdict: str = ""
    policy: str = ""


class Said(Struct, frozen=True, kw_only=True):
    """What a rule says, before it is known of whom and when."""

    kind: SignalKind
    rule: str
    firing: bool
    severity: str
    message: str
    value: float = 0.0
    threshold: float = 0.0
    evidence: dict[str, float] = {}


class Told(Struct, frozen=True):
    """The signals of a look, and what was heard with them."""

    signals: tuple[Signal, ...]
    heard: Heard


def breaches(result: Result) -> dict[str, Harm]:
    """The guardrails that are breached, by ``metric/variant``."""
    return {
        f"{metric.name}/{one.variant}": one.harm
        for metric in result.metrics
        for one in metric.comparisons
        if isinstance(one.harm, Harm) and one.harm.breached
    }


def signals(result: Result, heard: Heard) -> Told:
    """What is new in a result. A breach is told once and for all: the test that found it holds whatever comes later."""
    found = breaches(result)
    invalid = {finding.check: finding.cause for finding in result.health if finding.severity is Severity.INVALID}
    verdict = _verdict(result.decision)
    told = (*_harm(result, found, heard), *_health(result, invalid, heard), *_decision(result, verdict, heard))
    breached = tuple(sorted({*heard.breached, *found}))
    return Told(told, Heard(breached=breached, invalid=invalid, verdict=verdict, policy=heard.policy))


def policy_signal(experiment: str, now: datetime, reason: str) -> Signal:
    """That a policy cannot be computed, or, without a reason, that it can be again."""
    message = reason or f"experiment {experiment}: the policy is computed again"
    return _signal(experiment, now, Said(kind=SignalKind.HEALTH, rule="policy", firing=bool(reason), severity="warning", message=message))


def _harm(result: Result, found: dict[str, Harm], heard: Heard) -> Iterator[Signal]:
    for rule, harm in found.items():
        if rule not in heard.breached:
            metric, variant = rule.split("/", 1)
            said = Said(
                kind=SignalKind.GUARDRAIL,
                rule=rule,
                firing=True,
                severity="critical",
                message=f"experiment {result.experiment}: {variant} harms {metric} by more than {harm.limit:g}",
                value=harm.bound if isinstance(harm.bound, float) else 0.0,
                threshold=harm.limit,
                evidence={"p_value": harm.p_value},
            )
            yield _of(result, said)


def _health(result: Result, invalid: dict[str, str], heard: Heard) -> Iterator[Signal]:
    numbers = {finding.check: finding.numbers for finding in result.health if finding.severity is Severity.INVALID}
    for check, cause in invalid.items():
        if check not in heard.invalid:
            message = f"experiment {result.experiment}: {cause}"
            said = Said(kind=SignalKind.HEALTH, rule=check, firing=True, severity="critical", message=message, evidence=numbers[check])
            yield _of(result, said)
    for check in heard.invalid:
        if check not in invalid:
            message = f"experiment {result.experiment}: {check} holds no longer"
            yield _of(result, Said(kind=SignalKind.HEALTH, rule=check, firing=False, severity="info", message=message))


def _decision(result: Result, verdict: str, heard: Heard) -> Iterator[Signal]:
    if verdict != (heard.verdict or Verdict.CONTINUE):
        decision = result.decision
        message = f"experiment {result.experiment}: {verdict} by the rule {decision.rule}: {decision.reason}"
        firing, numbers = decision.verdict is not Verdict.CONTINUE, decision.numbers
        said = Said(kind=SignalKind.DECISION, rule="decision", firing=firing, severity="info", message=message, evidence=numbers)
        yield _of(result, said)


def _verdict(decision: Decision) -> str:
    return f"{decision.verdict} {decision.variant}".strip() if decision.verdict is not Verdict.CONTINUE else Verdict.CONTINUE


def _of(result: Result, said: Said) -> Signal:
    return _signal(result.experiment, result.time, said, result.offsets)


def _signal(subject: str, time: datetime, said: Said, offsets: dict[str, dict[str, int]] | None = None) -> Signal:
    fingerprint = wire.derived_id(said.kind, subject, said.rule)
    return Signal(
        id=wire.derived_id(fingerprint, time.isoformat(), str(said.firing)),
        fingerprint=fingerprint,
        time=time,
        kind=said.kind,
        subject=subject,
        rule=said.rule,
        firing=said.firing,
        severity=said.severity,
        message=said.message,
        value=said.value,
        threshold=said.threshold,
        offsets=offsets or {},
        evidence=said.evidence,
    )

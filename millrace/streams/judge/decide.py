"""What to do with an experiment, by which rule, and the numbers that led there.

In this order: nothing is concluded from an experiment whose health is invalid; a variant that harms a guardrail is rejected; nothing else
is decided before the minimal run time and units. Then the plan's rule looks at the primary metrics of each variant. A variant is
implemented where a primary metric is better and none is worse, and rejected where one is worse or none can be better by what is worth
having. What is still open at the maximal run time, or when the experiment is over, is rejected: nothing was shown. Where a learnt policy
chooses by context no rule is asked: the arms' means are of different requests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from msgspec import Struct

from millrace.schemas.experiment import CONTEXTUAL, Plan, Rule
from millrace.schemas.metric import Role
from millrace.schemas.result import Decision, Finding, Harm, LookEvidence, MetricResult, Severity, Verdict
from millrace.streams.judge.known import Known, shares
from millrace.streams.judge.merge import Merged
from millrace.streams.judge.rules import Word, word
from millrace.streams.judge.terms import last_counted, out_of_time, run_seconds, thresholds


class Case(Struct, frozen=True, kw_only=True):
    """All that a decision is made of."""

    known: Known
    sums: Merged
    metrics: tuple[MetricResult, ...]
    health: tuple[Finding, ...]
    now: datetime

    @property
    def plan(self) -> Plan:
        """The plan's newest version."""
        return self.known.plan


KEPT = frozenset({Rule.FIXED, Rule.GROUP_SEQUENTIAL})
"""Rules that keep their word once they have given it: there is no look after the one that decided."""
BY_CONTEXT = (
    "the policy chooses by context, so that a variant's mean is that of the requests it was given to, and not of all:"
    " ask `millrace experiments ope`, which weighs each decision by its own chance"
)


def decide(case: Case, looked: Decision | None = None) -> Decision:
    """The decision at this look. ``looked`` is what a rule that keeps its word came to when it looked: it does not look again."""
    invalid = _invalid(case)
    if invalid is not None:
        return invalid
    harmed = _harmed(case)
    left = [variant.name for variant in case.plan.variants[1:] if variant.name not in harmed]
    if harmed and not left:
        return next(iter(harmed.values()))
    waiting = _waiting(case)
    if waiting is not None:
        return _ended(case) or waiting
    if looked is not None and _stands(case, looked, harmed):
        return looked
    return _by_rule(case, left) or _ended(case) or _open(case)


def chosen_by_context(plan: Plan) -> bool:
    """Whether a learnt policy looks at the context: which variant is given then follows from what the reward follows from."""
    return plan.allocation is not None and plan.allocation.policy in CONTEXTUAL


def may_conclude(case: Case, looked: Decision | None) -> bool:
    """Whether a look may be made that counts: health allows it, it is not too early, and no look has decided before."""
    if _invalid(case) is not None or _waiting(case) is not None:
        return False
    return looked is None or not _stands(case, looked, _harmed(case))


def is_kept(case: Case, decision: Decision) -> bool:
    """Whether this decision is the word that a rule keeps: its own, and not that it is open."""
    return _is_of(case, decision) and decision.verdict is not Verdict.CONTINUE


def _is_of(case: Case, decision: Decision) -> bool:
    rule = case.plan.analysis.rule
    return rule in KEPT and decision.rule == rule


def _stands(case: Case, looked: Decision, harmed: Collection[str]) -> bool:
    """Whether what was decided once still holds: another rule, or harm that was found since, makes it void."""
    return _is_of(case, looked) and looked.variant not in harmed


def _invalid(case: Case) -> Decision | None:
    invalid = [finding.check for finding in case.health if finding.severity is Severity.INVALID]
    if not invalid:
        return None
    reason = f"the experiment's health does not allow a conclusion: {', '.join(dict.fromkeys(invalid))}"
    return Decision(verdict=Verdict.INVALID, rule="health", reason=reason)


def _harmed(case: Case) -> dict[str, Decision]:
    """The variants that harm a guardrail beyond its limit, each with why."""
    found: dict[str, Decision] = {}
    for metric in case.metrics:
        for one in metric.comparisons:
            if isinstance(one.harm, Harm) and one.harm.breached and one.variant not in found:
                reason = f"{one.variant} harms {metric.name} by more than {one.harm.limit:g}"
                numbers = {"limit": one.harm.limit, "p_value": one.harm.p_value}
                if isinstance(one.harm.bound, float):
                    numbers["bound"] = one.harm.bound
                found[one.variant] = Decision(verdict=Verdict.REJECT, rule="guardrail", reason=reason, variant=one.variant, numbers=numbers)
    return found


def _waiting(case: Case) -> Decision | None:
    """Why it is too early, if so."""
    analysis, ran = case.plan.analysis, run_seconds(case.known, case.now)
    if ran < analysis.minimal_seconds:
        reason = f"it has run for {ran:.0f} s of at least {analysis.minimal_seconds:g} s"
        numbers = {"run_seconds": ran, "minimal_seconds": analysis.minimal_seconds}
        return Decision(verdict=Verdict.CONTINUE, rule="minimal_seconds", reason=reason, numbers=numbers)
    given = shares(case.plan)
    units, name = min((case.sums.arm(v.name).units, v.name) for v in case.plan.variants if given[v.name] > 0.0)
    if units >= analysis.minimal_units:
        return None
    reason = f"{name} has {units} of at least {analysis.minimal_units} units"
    numbers = {"units": float(units), "minimal_units": float(analysis.minimal_units)}
    return Decision(verdict=Verdict.CONTINUE, rule="minimal_units", reason=reason, numbers=numbers)


def _by_rule(case: Case, variants: Sequence[str]) -> Decision | None:
    """What the plan's rule says of the variants that harm nothing; None while one of them is open, and where means do not compare."""
    if chosen_by_context(case.plan):
        return None
    said = {variant: list(_words(case, variant)) for variant in variants}
    rule = case.plan.analysis.rule
    winners = [(variant, _best(words)) for variant, words in said.items() if _wins(words)]
    if winners:
        variant, word = max(winners, key=lambda one: one[1].gain)
        return Decision(verdict=Verdict.IMPLEMENT, rule=rule, reason=word.reason, variant=variant, numbers=word.numbers)
    if rule is Rule.FIXED and said and all(words and all(word.numbers for word in words) for words in said.values()):
        return _rejected(rule, said, "at the one look of a fixed horizon")
    if rule is Rule.GROUP_SEQUENTIAL and said and _last_look(case):
        return _rejected(rule, said, "at the last of the planned looks")
    if said and all(words and _loses(words) for words in said.values()):
        return _rejected(rule, said, "")
    return None


def _wins(words: Sequence[Word]) -> bool:
    return any(one.verdict is Verdict.IMPLEMENT for one in words) and not any(one.worse for one in words)


def _loses(words: Sequence[Word]) -> bool:
    return any(word.worse for word in words) or all(word.verdict is Verdict.REJECT for word in words)


def _best(words: Sequence[Word]) -> Word:
    return max((word for word in words if word.verdict is Verdict.IMPLEMENT), key=lambda word: word.gain)


def _rejected(rule: Rule, said: dict[str, list[Word]], when: str) -> Decision:
    """Why each variant is rejected, the reason that is worst first; with one variant, its numbers."""
    worst = {variant: max(words, key=lambda word: (word.worse, word.verdict is Verdict.REJECT)) for variant, words in said.items()}
    reason = "; ".join(word.reason for word in worst.values()) + (f", {when}" if when else "")
    numbers = next(iter(worst.values())).numbers if len(worst) == 1 else {}
    variant = next(iter(worst)) if len(worst) == 1 else ""
    return Decision(verdict=Verdict.REJECT, rule=rule, reason=reason, variant=variant, numbers=numbers)


def _words(case: Case, variant: str) -> Iterator[Word]:
    """What each primary metric says of a variant; one that cannot be told says that it is open."""
    for metric, result in zip(case.plan.metrics, case.metrics, strict=True):
        if metric.role is Role.PRIMARY:
            comparison = next(one for one in result.comparisons if one.variant == variant)
            yield word(case.plan, metric, comparison)


def _newest_look(case: Case) -> LookEvidence | None:
    """Any comparison's: all are of one look."""
    seen = (one.look for metric in case.metrics for one in metric.comparisons)
    return next((look for look in seen if isinstance(look, LookEvidence)), None)


def _last_look(case: Case) -> bool:
    newest = _newest_look(case)
    return newest is not None and newest.last


def _ended(case: Case) -> Decision | None:
    """What is open is rejected after the maximal run time, and once nothing more can count of an experiment that is over."""
    most, ran = case.plan.analysis.maximal_seconds, run_seconds(case.known, case.now)
    if most is not None and out_of_time(case.known, case.now):
        reason = f"after {ran:.0f} s of at most {most:g} s nothing was shown: there is no effect worth waiting for"
        numbers = {"run_seconds": ran, "maximal_seconds": most}
        return Decision(verdict=Verdict.REJECT, rule="maximal_seconds", reason=reason, numbers=numbers)
    closed = last_counted(case.known)
    if closed is not None and case.now >= closed:
        reason = f"it is {case.plan.state}, no outcome can count any more, and nothing was shown"
        return Decision(verdict=Verdict.REJECT, rule="over", reason=reason)
    return None


def _open(case: Case) -> Decision:
    rule = case.plan.analysis.rule
    if chosen_by_context(case.plan):
        return Decision(verdict=Verdict.CONTINUE, rule=rule, reason=BY_CONTEXT)
    if not any(metric.role is Role.PRIMARY for metric in case.plan.metrics):
        reason = "the plan has no primary metric, which alone decides"
        return Decision(verdict=Verdict.CONTINUE, rule=rule, reason=reason)
    said = [word for variant in case.plan.variants[1:] for word in _words(case, variant.name)]
    reason = "; ".join(word.reason for word in said) or "the plan has no treatment to compare"
    reason += _next_look(case)
    return Decision(verdict=Verdict.CONTINUE, rule=rule, reason=reason, numbers=said[0].numbers if len(said) == 1 else {})


def _next_look(case: Case) -> str:
    """When the rule ``group_sequential`` looks next."""
    looks, newest = case.plan.analysis.looks, _newest_look(case)
    if case.plan.analysis.rule is not Rule.GROUP_SEQUENTIAL or looks is None or (newest is not None and newest.last):
        return ""
    units = sum(case.sums.arm(variant.name).units for variant in case.plan.variants)
    number = 0 if newest is None else newest.number
    return f"; look {number + 1} of {len(looks.fractions)} is at {thresholds(looks)[number]} units, and {units} count"

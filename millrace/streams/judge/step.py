"""The judge as a step: sums of source partitions in, results, signals, policies and, on harm, a stopped plan out.

Time is the append time of what is read, so that a backlog gives the results that live traffic gave: a look is due when something was
sealed and the last look is a second ago, when a policy is due, or when time alone changes the answer. Looks that are due come before the
record that is next; ``tick`` brings out those that no record came to bring out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from msgspec.structs import replace

from millrace.schemas.errors import NotNow, UsageError
from millrace.schemas.event import from_ms
from millrace.schemas.experiment import Plan, State
from millrace.schemas.record import Emit, Record
from millrace.schemas.signal import Signal
from millrace.schemas.topics import EXPERIMENTS, POLICIES, RESULTS, SIGNALS
from millrace.streams.bandits.custom import CustomPolicy
from millrace.streams.judge.judge import Judged, judge
from millrace.streams.judge.known import Known, Plans
from millrace.streams.judge.policy import policy
from millrace.streams.judge.shelf import Desk, Shelf
from millrace.streams.judge.signals import breaches, policy_signal, signals
from millrace.streams.judge.terms import milestones
from millrace.streams.plan_check import BEGUN
from millrace.streams.revise import move
from millrace.streams.step import Batch, Store

LEAST_MS = 1_000
"""An experiment is judged at most so often."""
RENEWED_MS = 86_400_000
"""A policy is published again after this long: its topic does not keep versions for ever."""
BY_GUARDRAIL = "stopped by the rule guardrail"
"""How the conclusion of a plan begins that the judge has stopped."""
PATIENCE_SECONDS = 0.2
"""How long a plan that the sums know and the judge does not may take to arrive."""


class Judge:
    """Judge each experiment as of the seals of its source partitions. ``installed`` are custom policies by entry point."""

    def __init__(self, installed: Mapping[str, CustomPolicy] | None = None) -> None:
        self._installed = installed or {}
        self._plans = Plans()

    def observe(self, record: Record) -> bool:
        """Take in a plan's next version."""
        return isinstance(record.event, Plan) and self._plans.observe(record.event)

    def settle(self) -> dict[str, str]:
        """Nothing is lacking: a plan that has not come yet is waited for."""
        return {}

    def process(self, batch: Batch, store: Store) -> Iterator[Emit]:
        """Stage and seal, and look where a look is due. Raises NotNow for sums of a plan version that is on its way."""
        shelf = Shelf(store)
        for record in batch.records:
            yield from self._looks(record.appended_ms, shelf)
            self._known(record.event.experiment, record.event.plan_version)
            if record.event.metric:
                shelf.stage(record.event)
            elif shelf.seal(record.event):
                self._sealed(record.event.experiment, record.appended_ms, shelf)
                yield from self._looks(record.appended_ms, shelf)

    def tick(self, watermark_ms: int, now: datetime, store: Store) -> Iterator[Emit]:
        """Look where time has come, and anew at what was edited."""
        shelf = Shelf(store)
        if shelf.edits() != self._plans.edits:
            self._compare(watermark_ms, shelf)
        yield from self._looks(watermark_ms, shelf)

    def _known(self, name: str, version: int) -> Known:
        known = self._plans.get(name)
        if known is None or known.number < version:
            raise NotNow(f"version {version} of experiment {name} is on its way", PATIENCE_SECONDS)
        return known

    def _sealed(self, name: str, at_ms: int, shelf: Shelf) -> None:
        desk = replace(shelf.desk(name), changed=True, learnt=True)
        shelf.keep(name, self._scheduled(desk, self._known(name, desk.plan_version), at_ms))

    def _compare(self, at_ms: int, shelf: Shelf) -> None:
        """A plan that was edited since its last look is looked at again."""
        shelf.compared(self._plans.edits)
        for name in shelf.names():
            desk, known = shelf.desk(name), self._plans.get(name)
            if known is not None and known.plan.version > desk.plan_version:
                shelf.keep(name, self._scheduled(replace(desk, changed=True, learnt=True), known, at_ms))

    def _looks(self, until_ms: int, shelf: Shelf) -> Iterator[Emit]:
        while (due := shelf.due(until_ms)) is not None:
            at_ms, name = due
            yield from self._look(name, at_ms, shelf)

    def _look(self, name: str, at_ms: int, shelf: Shelf) -> Iterator[Emit]:
        desk = shelf.desk(name)
        known, now = self._known(name, desk.plan_version), from_ms(at_ms)
        judged = judge(known, shelf.partitions(name), desk.past, now)
        if desk.changed or any(desk.judged_ms < time_ms <= at_ms for time_ms in milestones(known)):
            yield Emit(RESULTS.name, name, judged.result)
            told = signals(judged.result, desk.heard)
            yield from map(_signal, told.signals)
            if self._stops(known, desk, judged):
                yield Emit(EXPERIMENTS.name, name, stopped(known, judged, now))
                desk = replace(desk, stopped_from=known.number)
            desk = replace(desk, changed=False, judged_ms=at_ms, plan_version=known.plan.version, past=judged.past, heard=told.heard)
        if (policy_ms := _policy_due_ms(desk, known.plan)) is not None and policy_ms <= at_ms:
            desk, emits = self._taught(desk, known.plan, judged, at_ms)
            yield from emits
        shelf.keep(name, self._scheduled(desk, known, at_ms))

    def _stops(self, known: Known, desk: Desk, judged: Judged) -> bool:
        """Whether harm stops it now: once for each version of the plan, because an edit that came first makes ours void."""
        plan = known.plan
        return plan.analysis.stop_on_harm and plan.state in BEGUN and known.number > desk.stopped_from and bool(breaches(judged.result))

    def _taught(self, desk: Desk, plan: Plan, judged: Judged, at_ms: int) -> tuple[Desk, list[Emit]]:
        """The next policy, or, told once, why there is none."""
        desk = replace(desk, learnt=False, policy_ms=at_ms)
        reason, emits = "", []
        try:
            made = policy(plan, judged.sums, desk.policy_version + 1, from_ms(at_ms), self._installed)
        except UsageError as error:
            reason = str(error)
        else:
            desk = replace(desk, policy_version=made.version)
            emits.append(Emit(POLICIES.name, plan.name, made))
        if reason != desk.heard.policy:
            emits.append(_signal(policy_signal(plan.name, from_ms(at_ms), reason)))
        return replace(desk, heard=replace(desk.heard, policy=reason)), emits

    def _scheduled(self, desk: Desk, known: Known, at_ms: int) -> Desk:
        """With the time of the next look; one that is due at once is due now."""
        due = [time_ms for time_ms in milestones(known) if time_ms > max(at_ms, desk.judged_ms)]
        if desk.changed:
            due.append(max(at_ms, desk.judged_ms + LEAST_MS))
        if (policy_ms := _policy_due_ms(desk, known.plan)) is not None:
            due.append(max(at_ms, policy_ms))
        return replace(desk, due_ms=min(due, default=0))


def stopped(known: Known, judged: Judged, now: datetime) -> Plan:
    """The plan's next version, stopped, with the rule and the numbers that stopped it."""
    told = [
        f"{rule.split('/', 1)[1]} harms {rule.split('/', 1)[0]} by more than {harm.limit:g} (p {harm.p_value:.3g})"
        for rule, harm in breaches(judged.result).items()
    ]
    plan = replace(move(known.plan, State.STOPPED, now), version=known.number + 1)
    return replace(plan, conclusion=f"{BY_GUARDRAIL}: {'; '.join(told)}")


def _policy_due_ms(desk: Desk, plan: Plan) -> int | None:
    """When the next policy is due, if the plan learns and runs."""
    if plan.allocation is None or plan.state is not State.RUNNING:
        return None
    return desk.policy_ms + (round(plan.allocation.every_seconds * 1_000) if desk.learnt else RENEWED_MS)


def _signal(signal: Signal) -> Emit:
    return Emit(SIGNALS.name, signal.fingerprint, signal)

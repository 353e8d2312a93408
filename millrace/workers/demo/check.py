"""Whether anything was lost, doubled or wrong: at the committed reader, between records and rows, and decision by decision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.workers.demo.judge import Decision, Truth, mistakes
from millrace.workers.demo.publish import Answered
from millrace.workers.demo.result import Checks, Counts
from millrace.workers.demo.traffic import Visit
from millrace.workers.stack.child import State
from millrace.workers.stack.status import Status
from millrace.workers.verify import Report


def check(
    visits: Sequence[Visit], answered: Answered, report: Report, counts: Counts, wrong: Sequence[str], experiment: Sequence[str]
) -> Checks:
    """Everything that was found, in numbers and in words. ``wrong`` are decisions; ``experiment`` is what its result lacks."""
    unanswered = [visit.request_id for visit in visits if visit.request_id not in answered.first]
    return Checks(
        lost=len(unanswered) + report.missing,
        duplicated=answered.repeated + report.duplicated,
        wrong=len(wrong) + report.unknown,
        problems=(
            *(f"{request_id} was not answered" for request_id in unanswered),
            *([f"{answered.repeated} answers came twice"] if answered.repeated else ()),
            *_differences(report),
            *_short(counts, len(visits)),
            *wrong,
            *experiment,
        ),
        verified_records=report.records,
    )


def judged(visits: Sequence[Visit], decisions: Iterable[Decision], truth: Truth, disagreeing: int) -> list[str]:
    """What is wrong with decisions, and with buckets that ClickHouse derived otherwise."""
    found = mistakes(visits, decisions, truth)
    return found + ([f"{disagreeing} buckets are not what ClickHouse derives"] if disagreeing else [])


def ailing(found: Status) -> list[str]:
    """What the processes say that are not ready, or had to be started again: most likely the cause of all else."""
    return [
        f"{row.name} is {row.state}, started again {row.restarts} times: {row.last_error or 'it has not said why'}"
        for row in found.processes
        if row.restarts or row.state != State.READY.value
    ]


def _differences(report: Report) -> list[str]:
    """The verdict of ``millrace verify``, partition by partition."""
    found = [
        f"{one.topic}/{one.partition}: {one.missing} records have no row, {one.duplicated} rows are doubled, {one.unknown} have no record"
        for one in report.partitions
        if not one.clean
    ]
    return found + ([f"the archiver did not catch up on {report.behind} partitions"] if report.behind else [])


def _short(counts: Counts, wanted: int) -> list[str]:
    """What ClickHouse does not have as often as it was asked for."""
    named = {"requests": counts.requests, "predictions": counts.predictions, "assignments": counts.assignments, "outcomes": counts.outcomes}
    return [f"ClickHouse has {found} {name}, not {wanted}" for name, found in named.items() if found != wanted]

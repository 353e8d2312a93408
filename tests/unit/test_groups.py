"""What a worker keeps for a partition group, and that it never goes past a commit that Kafka lost."""

from __future__ import annotations

import pytest

from millrace.infra.kafka.positions import Metadata, Position, Remedies
from millrace.schemas.errors import CommitLost
from millrace.streams.cap import Cap
from millrace.workers.groups import Group

PLACE = ("requests", 0)
REMEDIES = Remedies.of("echo")


def at(offset: int) -> dict[tuple[str, int], Position]:
    return {PLACE: Position(offset, Metadata("id"))}


@pytest.fixture
def group() -> Group:
    """A group that took over at 5 and whose commit up to 10 was answered, with a turn up to 20 under way."""
    made = Group(0)
    made.positions = at(5)
    made.advance(PLACE, 10, Cap())
    made.settle("")
    made.advance(PLACE, 20, Cap())
    return made


@pytest.mark.parametrize("committed", [10, 20], ids=["aborted", "committed after all"])
def test_it_goes_back_to_what_is_committed(group: Group, committed: int) -> None:
    group.go_back_to(at(committed), REMEDIES)
    assert group.offsets() == {PLACE: committed}


def test_a_commit_that_kafka_lost_is_not_gone_past(group: Group) -> None:
    with pytest.raises(CommitLost, match=r"requests/0 up to 10, and now says 5.*`millrace offsets reset echo --to commits`"):
        group.go_back_to(at(5), REMEDIES)


def test_before_the_first_commit_nothing_can_be_lost() -> None:
    group = Group(0)
    group.positions = at(5)
    group.go_back_to(at(5), REMEDIES)
    assert group.offsets() == {PLACE: 5}

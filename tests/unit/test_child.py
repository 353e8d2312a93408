"""A child's life, driven by hand: the clock is a number and the process an object."""

from __future__ import annotations

import os

import pytest

from millrace.workers.stack.child import HEALTHY_SECONDS, MISSES, PROBE_READY_SECONDS, Child, Ended, State, Watch, backoff_seconds


class FakeProcess:
    pid = 7

    def __init__(self) -> None:
        self.code: int | None = None
        self.asked: list[str] = []

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.asked.append("terminate")

    def kill(self) -> None:
        self.asked.append("kill")


class Bench:
    """A watch with everything that it sees and says."""

    def __init__(self) -> None:
        self.processes: list[FakeProcess] = []
        self.ready = False
        self.ended: list[Ended] = []
        self.refuse = False
        child = Child("x-0", "x", ("x",), lambda: self.ready)
        self.watch = Watch(child, self._spawn, 30.0, self.ended.append)

    def _spawn(self, child: Child) -> FakeProcess:
        if self.refuse:
            raise OSError("no memory")
        self.processes.append(FakeProcess())
        return self.processes[-1]


def state(bench: Bench) -> State:
    return bench.watch.state


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_ready_once_it_says_so(bench: Bench) -> None:
    bench.watch.start(0.0)
    bench.watch.tick(0.0)
    assert bench.watch.state is State.STARTING
    bench.ready = True
    bench.watch.tick(0.1)
    assert bench.watch.state is State.STARTING, "probed again too soon"
    bench.watch.tick(0.3)
    assert state(bench) is State.READY


def test_it_is_not_ready_when_it_no_longer_says_so_but_goes_on(bench: Bench) -> None:
    bench.ready = True
    bench.watch.start(0.0)
    bench.watch.tick(0.0)
    bench.ready = False
    for missed in range(1, MISSES):
        bench.watch.tick(PROBE_READY_SECONDS + missed)
        assert state(bench) is State.READY, "one that is late now and then is ready"
    bench.watch.tick(PROBE_READY_SECONDS + MISSES)
    assert state(bench) is State.NOT_READY
    assert len(bench.processes) == 1
    bench.ready = True
    bench.watch.tick(PROBE_READY_SECONDS + MISSES + 1)
    assert state(bench) is State.READY


def test_it_is_starting_again_only_when_it_was_started_again(bench: Bench) -> None:
    bench.ready = True
    bench.watch.start(0.0)
    bench.watch.tick(0.0)
    bench.ready = False
    for missed in range(1, MISSES + 1):
        bench.watch.tick(PROBE_READY_SECONDS + missed)
    assert state(bench) is State.NOT_READY
    bench.processes[-1].code = -9
    bench.watch.tick(PROBE_READY_SECONDS + MISSES + 1)
    assert state(bench) is State.BACKING_OFF
    bench.watch.tick(PROBE_READY_SECONDS + MISSES + 2)
    assert state(bench) is State.STARTING


def test_it_is_started_again_after_a_backoff_that_doubles(bench: Bench) -> None:
    bench.watch.start(0.0)
    now = 0.0
    for restarts, wait in enumerate((0.25, 0.5, 1.0), start=1):
        bench.processes[-1].code = 1
        bench.watch.tick(now)
        assert bench.watch.state is State.BACKING_OFF
        bench.watch.tick(now + wait - 0.01)
        assert bench.watch.restarts == restarts - 1
        now += wait
        bench.watch.tick(now)
        assert (bench.watch.restarts, bench.watch.state) == (restarts, State.STARTING)
    assert [end.backoff_seconds for end in bench.ended] == [0.25, 0.5, 1.0]


def test_a_healthy_time_resets_the_backoff(bench: Bench) -> None:
    bench.ready = True
    bench.watch.start(0.0)
    for now in (0.0, 10.0):  # ready at both, but for too short a time
        bench.watch.tick(now)
        bench.processes[-1].code = -9
        bench.watch.tick(now + 1)
        bench.watch.tick(now + 2)
    bench.watch.tick(20.0)
    bench.processes[-1].code = -9
    bench.watch.tick(20.0 + HEALTHY_SECONDS)
    assert [end.backoff_seconds for end in bench.ended] == [0.25, 0.5, 0.25]


def test_wrong_usage_is_not_tried_again(bench: Bench) -> None:
    bench.watch.start(0.0)
    bench.processes[-1].code = 2
    bench.watch.tick(1.0)
    bench.watch.tick(1_000.0)
    assert bench.watch.state is State.FAILED
    assert bench.ended == [Ended("x-0", 2, None)]
    assert len(bench.processes) == 1


def test_a_system_that_cannot_start_it_counts_as_its_end(bench: Bench) -> None:
    bench.refuse = True
    bench.watch.start(0.0)
    assert (bench.watch.state, bench.ended[0].exit_code) == (State.BACKING_OFF, os.EX_OSERR)
    bench.refuse = False
    bench.watch.tick(1.0)
    assert bench.watch.state is State.STARTING


def test_what_we_stop_stays_stopped(bench: Bench) -> None:
    bench.watch.start(0.0)
    bench.watch.terminate()
    assert not bench.watch.ended()
    bench.processes[-1].code = 0
    assert bench.watch.ended()
    bench.watch.tick(100.0)
    assert (bench.watch.state, len(bench.processes), bench.ended) == (State.STOPPED, 1, [])


def test_a_child_in_its_backoff_is_stopped_without_a_process(bench: Bench) -> None:
    bench.watch.start(0.0)
    bench.processes[-1].code = 1
    bench.watch.tick(0.0)
    bench.watch.terminate()
    bench.watch.tick(100.0)
    assert bench.watch.ended()
    assert len(bench.processes) == 1


def test_the_backoff_has_a_limit_however_often_it_failed() -> None:
    assert backoff_seconds(10_000, 30.0) == 30.0

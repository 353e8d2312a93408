"""Only a process that is proven ours may be ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest
from msgspec.structs import replace

from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.processes import Identity, end, find, gone
from tests.stack import wait_until

COMMAND = (sys.executable, "-c", "import time; time.sleep(60)")


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(COMMAND)
    yield child
    child.kill()
    child.wait()


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = Identity.of(process.pid, COMMAND)
    assert found is not None
    wait_until(lambda: find(found) is not None, 20, "the process runs its command")
    return found


def test_pid_creation_time_and_arguments_are_all_needed(process: subprocess.Popen[bytes]) -> None:
    ours = identity(process)
    assert find(replace(ours, created=ours.created - 10)) is None
    assert find(replace(ours, arguments=("-c", "something else"))) is None
    assert find(replace(ours, pid=1)) is None
    assert find(None) is None
    assert find(ours) is not None


def test_a_process_that_took_over_the_pid_is_left_alone(process: subprocess.Popen[bytes]) -> None:
    ours = identity(process)
    assert end([replace(ours, created=ours.created - 3_600), None], 1) == []
    assert process.poll() is None


def test_ends_ours_even_when_it_is_frozen(process: subprocess.Popen[bytes]) -> None:
    ours = identity(process)
    process.send_signal(signal.SIGSTOP)
    assert end([ours], 5) == [process.pid]
    assert find(ours) is None


def test_kills_ours_when_it_does_not_listen() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    command = (sys.executable, "-c", script)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        ours = Identity.of(deaf.pid, command)
        assert ours is not None
        assert end([ours], 0.3) == [deaf.pid]
        assert gone(ours, 20)


def test_a_zombie_is_gone() -> None:
    with subprocess.Popen(COMMAND) as child:
        ours = Identity.of(child.pid, COMMAND)
        assert ours is not None
        child.kill()
        wait_until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, 20, "a zombie")
        assert gone(ours, 0)


def test_own_identity_is_found() -> None:
    assert find(Identity.own()) is not None


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's")
def test_a_launched_child_ends_with_its_parent_whatever_kills_it() -> None:
    parent = (
        "import subprocess, sys, time; from millrace.infra.embedded.launch import wrapped;"
        f"p = subprocess.Popen(wrapped({COMMAND!r}), start_new_session=True); print(p.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen((sys.executable, "-c", parent), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        wait_until(lambda: psutil.Process(pid).cmdline()[1:] == list(COMMAND[1:]), 20, "the child became its command")
        process.kill()
    wait_until(lambda: has_ended(pid), 20, "the child ended too")


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_launched_command_keeps_pid_output_and_exit_code() -> None:
    script = "import os; print(os.getpid()); raise SystemExit(5)"
    with subprocess.Popen(wrapped((sys.executable, "-c", script)), stdout=subprocess.PIPE) as process:
        output, _ = process.communicate(timeout=30)
        assert (int(output), process.returncode) == (process.pid, 5)


def test_a_command_that_is_not_there_says_so() -> None:
    result = subprocess.run(wrapped(("/no/such/program",)), capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr.strip()) == (1, "cannot run /no/such/program: No such file or directory")

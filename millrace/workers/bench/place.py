"""Where a benchmark runs: a broker, fresh topics, and the loop under test as a process of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from millrace.infra.embedded import kafka
from millrace.infra.embedded.launch import wrapped
from millrace.infra.embedded.ports import free_base
from millrace.infra.kafka.clients import admin, describe, full_name, producer
from millrace.infra.kafka.offsets import committed
from millrace.infra.kafka.provision import Wanted, provision
from millrace.infra.settings import Settings, process_environment
from millrace.schemas.errors import Unavailable
from millrace.schemas.topics import REQUESTS, TOPICS
from millrace.workers.bench.bare import ROLE as BARE
from millrace.workers.bench.options import Options
from millrace.workers.bench.traffic import Traffic, prepare
from millrace.workers.inference import ROLE as INFERENCE

Headers = list[tuple[str, str | bytes | None]]
Sent = tuple[str, str, bytes]
"""A topic's full name, a key and a value."""

LOOPS = (BARE, INFERENCE)
START_SECONDS = 60.0
PATIENCE_SECONDS = 300.0


@contextlib.contextmanager
def broker(settings: Settings) -> Iterator[Settings]:
    """The settings with a broker's address: their own, else that of a broker in a temporary folder, gone afterwards."""
    if settings.kafka.address:
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder, _server(Path(folder)) as address:
        yield replace(settings, kafka=replace(settings.kafka, address=address), stack=replace(settings.stack, data=folder))


@contextlib.contextmanager
def _server(folder: Path) -> Iterator[str]:
    base = free_base()
    config = kafka.Broker(folder / "kafka", base, base + 1)
    config.folder.mkdir(parents=True)
    with (folder / "kafka.log").open("wb") as log, ended(subprocess.Popen(wrapped(kafka.prepare(config)), stdout=log, stderr=log)):
        deadline = time.monotonic() + START_SECONDS
        while not kafka.answers(base):
            if time.monotonic() > deadline:
                said = (folder / "kafka.log").read_text()[-500:]
                raise Unavailable(f"the benchmark's broker did not start within {START_SECONDS:g} s: {said}")
            time.sleep(0.1)
        yield config.address


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block, by force if it does not go."""
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def topics(settings: Settings, options: Options, prefix: str) -> Iterator[Settings]:
    """Fresh topics under a prefix, ready for either loop, deleted afterwards."""
    fresh = replace(settings, topic_prefix=f"{settings.topic_prefix}{prefix}-")
    provision(fresh, Wanted(topics=TOPICS, readers=dict.fromkeys(LOOPS, (REQUESTS,))))
    try:
        prepare(fresh, options)
        yield fresh
    finally:
        client = admin(fresh)  # kept until its futures are done
        for future in client.delete_topics([full_name(fresh, topic) for topic in TOPICS]).values():
            future.exception(30)


def publish(settings: Settings, options: Options) -> None:
    """Put all requests on their topic, as an outside producer would."""
    traffic, name = Traffic(options), full_name(settings, REQUESTS)
    send(settings, ((name, str(i), value) for i, value in traffic.values()), traffic.headers)


def send(settings: Settings, records: Iterable[Sent], headers: Headers | None = None) -> None:
    """Put records on their topics. Raises Unavailable where Kafka has not taken all of them a minute after the last."""
    client = producer(settings)
    for number, (name, key, value) in enumerate(records):
        while True:
            try:
                client.produce(name, value, key, headers=headers)
                break
            except BufferError:
                client.poll(0.05)
        if not number % 500:
            client.poll(0)
    if left := client.flush(60):
        raise Unavailable(f"Kafka did not take {left} of the records within a minute")


@contextlib.contextmanager
def loop(role: str, settings: Settings, options: Options) -> Iterator[subprocess.Popen[bytes]]:
    """The loop under test as a process, ended afterwards."""
    command = [sys.executable, "-m", f"millrace.workers.{'bench.bare' if role == BARE else role}"]
    with tempfile.TemporaryFile() as log:
        variables = process_environment() | environment(settings, options)
        child = subprocess.Popen(wrapped((*command, options.to_text()), signal.SIGKILL), stdout=log, stderr=log, env=variables)
        with ended(child):
            yield child
            if child.poll() is not None:
                log.seek(0)
                raise Unavailable(f"the {role} loop ended by itself: {log.read().decode(errors='replace')[-2_000:]}")


def environment(settings: Settings, options: Options) -> dict[str, str]:
    """What a child process is to be told of these settings."""
    return {
        "MILLRACE_KAFKA": settings.kafka.address,
        "MILLRACE_TOPIC_PREFIX": settings.topic_prefix,
        "MILLRACE_DATA": str(settings.stack.folder),
        "MILLRACE_RUNNER__POLL_RECORDS": str(options.poll_records),
        "MILLRACE_RUNNER__GATHER_SECONDS": str(options.gather_seconds),
    }


def wait_until_done(role: str, settings: Settings, requests: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until the role has committed all requests, or its process has ended."""
    name = full_name(settings, REQUESTS)
    infos = describe(settings, [name])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while child.poll() is None and sum(max(0, offset) for offset in committed(settings, role, infos).values()) < requests:
        if time.monotonic() > deadline:
            raise Unavailable(f"the {role} loop did not answer {requests} requests within {PATIENCE_SECONDS:g} s")
        time.sleep(0.25)

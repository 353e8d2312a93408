"""What ``millrace up`` is to start: made of the settings and of what the command line asks for, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from millrace.infra.embedded import kafka
from millrace.infra.embedded.ports import METRICS_OFFSET, Ports, require
from millrace.infra.embedded.stack_file import Addresses
from millrace.infra.settings import Settings
from millrace.schemas.errors import SettingsError, UsageError
from millrace.workers.stack.child import Child
from millrace.workers.stack.probe import LOOPBACK
from millrace.workers.stack.roles import WORKERS, WorkerSlot, clickhouse_child, kafka_child, slots, worker_child

ASKED_ON_LOOPBACK = (LOOPBACK, "localhost", "0.0.0.0")


@dataclass(frozen=True, slots=True)
class Plan:
    """Where everything goes: data folder, ports, addresses, and which workers run."""

    settings: Settings
    data: Path
    ports: Ports
    workers: tuple[WorkerSlot, ...] = field(default=())

    @property
    def addresses(self) -> Addresses:
        """The addresses in the settings, else the embedded ones."""
        kafka_address = self.settings.kafka.address or f"127.0.0.1:{self.ports.kafka}"
        host = self.settings.endpoint.host
        embedded = f"http://{f'[{host}]' if ':' in host else host}:{self.ports.clickhouse}"
        return Addresses(kafka_address, self.settings.clickhouse.address or embedded)

    @property
    def embeds_kafka(self) -> bool:
        return not self.settings.kafka.address

    @property
    def embeds_clickhouse(self) -> bool:
        return not self.settings.clickhouse.address

    @property
    def broker(self) -> kafka.Broker:
        """The embedded broker, if there is to be one."""
        return kafka.Broker(self.data / "kafka", self.ports.kafka, self.ports.controller, self.settings.stack.kafka_heap_bytes)


def make(settings: Settings, inference: int | None, with_workers: bool) -> Plan:
    """The plan for these settings; raises UsageError when it would start nothing or when a setting would have no effect."""
    _check_settings(settings)
    ports = Ports.at(settings.stack.port_base)
    if settings.endpoint.port:
        ports = replace(ports, clickhouse=settings.endpoint.port)
    counts = dict.fromkeys(WORKERS, 1) | ({} if inference is None else {"inference": inference})
    workers = tuple(slots(counts, ports.metrics)) if with_workers else ()
    plan = Plan(settings, settings.stack.folder.absolute(), ports, workers)
    if not (workers or plan.embeds_kafka or plan.embeds_clickhouse):
        raise UsageError("nothing to start: both addresses are in the settings and --no-workers was given.")
    return plan


def _check_settings(settings: Settings) -> None:
    """Raise SettingsError for what ``up`` decides for each of its workers: it is for a worker that is run by itself."""
    if settings.ordinal:
        raise SettingsError(
            "settings: ordinal is for a worker that is run by itself; `millrace up` numbers its workers. Leave it out here."
        )
    if settings.telemetry.port:
        raise SettingsError(
            "settings: telemetry.port is for a worker that is run by itself; `millrace up` gives each of its workers a port"
            f" from {Ports().metrics} on, or with --port-base N from N+{METRICS_OFFSET}. Leave it out here."
        )
    if settings.telemetry.host not in ASKED_ON_LOOPBACK:
        raise SettingsError(
            f"settings: telemetry.host is {settings.telemetry.host!r}, but `millrace up` asks its workers on {LOOPBACK} whether they are"
            f" ready: use one of {', '.join(ASKED_ON_LOOPBACK)}."
        )


def check_ports(plan: Plan) -> None:
    """Raise PortTaken for the first port of the plan that somebody else has."""
    if plan.embeds_kafka:
        require(plan.ports.kafka, "Kafka")
        require(plan.ports.controller, "Kafka's controller")
    if plan.embeds_clickhouse:
        require(plan.ports.clickhouse, "ClickHouse, by endpoint.port" if plan.settings.endpoint.port else "ClickHouse")
    for slot in plan.workers:
        require(slot.telemetry_port, f"metrics of {slot.name}")
    require(plan.ports.supervisor, "metrics of millrace up")


def places(plan: Plan) -> list[Child]:
    """The embedded places as children; makes Kafka's folder ready, which takes a second the first time."""
    children = [kafka_child(plan.broker, kafka.prepare(plan.broker))] if plan.embeds_kafka else []
    return children + ([clickhouse_child(plan.data, plan.settings.endpoint.host, plan.ports.clickhouse)] if plan.embeds_clickhouse else [])


def workers(plan: Plan) -> list[Child]:
    """The workers as children, told where the places are."""
    environment = {
        "MILLRACE_KAFKA": plan.addresses.kafka,
        "MILLRACE_CLICKHOUSE": plan.addresses.clickhouse,
        "MILLRACE_DATA": str(plan.data),
    }
    return [worker_child(slot, environment) for slot in plan.workers]

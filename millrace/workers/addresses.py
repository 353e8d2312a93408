"""Which Kafka and ClickHouse a command talks to: the settings' own, else those of the stack that runs on the data folder."""

from __future__ import annotations

from msgspec.structs import replace

from millrace.infra.embedded import stack_file
from millrace.infra.embedded.processes import find
from millrace.infra.embedded.stack_file import Addresses
from millrace.infra.settings import ClickHouseSettings, Secret, Settings
from millrace.schemas.errors import Unavailable


def connected(settings: Settings) -> Settings:
    """The settings with both addresses filled in; raises Unavailable when one is missing and no stack runs."""
    if settings.kafka.address and settings.clickhouse.address:
        return settings
    stack = stack_file.read(settings.stack.folder)
    if stack is None or find(stack.supervisor) is None:
        raise Unavailable(
            f"no stack runs on {settings.stack.folder}: start one with: millrace up --detach,"
            " or name your own places in MILLRACE_KAFKA and MILLRACE_CLICKHOUSE."
        )
    return with_addresses(settings, stack.addresses)


def as_analyst(settings: Settings) -> ClickHouseSettings:
    """Where ClickHouse is, with an analyst's user and password: of the one-machine stack, those that its endpoint asks for.

    Raises Unavailable as ``connected`` does.
    """
    own = bool(settings.clickhouse.address)
    place = (settings if own else connected(settings)).clickhouse
    password = place.analyst_password or (Secret() if own else settings.endpoint.analyst_password)
    return replace(place, user=place.analyst_user, password=password)


def with_addresses(settings: Settings, addresses: Addresses) -> Settings:
    """The settings with these addresses where they name none."""
    return replace(
        settings,
        kafka=replace(settings.kafka, address=settings.kafka.address or addresses.kafka),
        clickhouse=replace(settings.clickhouse, address=settings.clickhouse.address or addresses.clickhouse),
    )

"""Which ports the one-machine stack takes, and who has them when they are not free."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass

import psutil

from millrace.schemas.errors import PortTaken

WIDTH = 40
METRICS_OFFSET = 10


@dataclass(frozen=True, slots=True)
class Ports:
    """The stack's ports on 127.0.0.1; ``metrics`` is the first of one for each worker, ``supervisor`` that of ``millrace up``."""

    kafka: int = 9092
    controller: int = 9093
    clickhouse: int = 8123
    supervisor: int = 9463
    metrics: int = 9464

    @classmethod
    def at(cls, base: int) -> Ports:
        """The ports from ``base`` on, or the standard ones for 0."""
        return cls(base, base + 1, base + 2, base + 3, base + METRICS_OFFSET) if base else cls()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require(port: int, purpose: str) -> None:
    """Raise PortTaken, saying by whom as far as can be seen, unless the port is free."""
    if not is_free(port):
        raise PortTaken(
            f"port {port} ({purpose}) is in use by {owner(port)}."
            " Stop that, or give this stack other ports: millrace up --port-base N (and --data for a second stack)."
        )


def owner(port: int) -> str:
    """The process that listens on a port, as ``pid 12 (java)``; what the user may not see is 'another process'."""
    try:
        connections = psutil.net_connections("tcp")
        pids = [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr.port == port and c.pid]
        return f"pid {pids[0]} ({psutil.Process(pids[0]).name()})" if pids else "another process"
    except psutil.Error:
        return "another process"


def free_base(width: int = WIDTH) -> int:
    """A base whose ``width`` ports are all free now, below the range that the system hands out to clients."""
    bases = range(10_000, 32_000 - width, width)
    for base in random.SystemRandom().sample(bases, len(bases)):
        # From the last: whoever claims a whole range holds that one, and its others, which may be restarting, are not touched.
        if all(is_free(port) for port in reversed(range(base, base + width))):
            return base
    raise PortTaken(f"no {width} free ports in a row between 10000 and 32000 on this machine.")

"""Refuse what a web page of another origin sends to this machine's loopback address through somebody's browser."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from millrace.infra.embedded.clickhouse.body import Headers
from millrace.infra.embedded.clickhouse.errors import ACCESS_DENIED, QueryError


def refuse_foreign(headers: Headers) -> None:
    """Raise QueryError 497 unless Host (DNS rebinding) and Origin (cross-site requests), where given, name this machine."""
    host = urlsplit("//" + (headers.get("Host") or "localhost")).hostname or ""
    if not is_loopback(host):
        raise QueryError(ACCESS_DENIED, f"the Host header names {host!r}; this endpoint answers to this machine's loopback names alone")
    origin = headers.get("Origin")
    if origin and not is_loopback(urlsplit(origin).hostname or ""):
        raise QueryError(ACCESS_DENIED, f"requests from web pages of {origin!r} are refused")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's loopback."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

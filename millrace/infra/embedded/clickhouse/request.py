"""What a client asked: parameters, user, settings and formats, read from the URL, the headers and a form."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from urllib.parse import parse_qsl

from millrace.infra.embedded.clickhouse.body import Headers
from millrace.infra.embedded.clickhouse.errors import AUTHENTICATION_FAILED, BAD_ARGUMENTS, BAD_BODY, NOT_IMPLEMENTED, QueryError
from millrace.infra.settings import EndpointSettings


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ANALYST, DEFAULT = "analyst", "default"
# The HTTP interface's own parameters: consumed here, never settings of the engine.
OWN = _words(
    "query database user password default_format session_id session_timeout session_check query_id quota_key compress decompress "
    "wait_end_of_query buffer_size client_protocol_version role enable_http_compression send_progress_in_http_headers "
    "http_headers_progress_interval_ms cancel_http_readonly_queries_on_client_close add_http_cors_header stacktrace close_session "
    "http_write_exception_in_output_format http_zlib_compression_level"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body aside."""

    method: str
    user: str
    query_id: str
    sql: str
    database: str
    default_format: str
    params: dict[str, str]
    settings: dict[str, str]
    own: dict[str, str]
    accept_encoding: str

    def flag(self, name: str) -> bool:
        """Whether one of the interface's own switches is on."""
        return self.own.get(name, "0").lower() in ("1", "true")

    @property
    def is_analyst(self) -> bool:
        return self.user == ANALYST


class Users:
    """Who may come in. Only salted hashes of the passwords are kept; an empty one lets anybody of this machine in."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._salt = secrets.token_bytes(16)
        passwords = {DEFAULT: settings.password, ANALYST: settings.analyst_password}
        self._hashes = {user: self._hash(password.reveal()) for user, password in passwords.items() if password}

    def check(self, user: str, password: str) -> str:
        """The user's name. Raises QueryError 516 for an unknown user or a wrong password, without saying which."""
        name = user or DEFAULT
        known = name in (DEFAULT, ANALYST)
        expected = self._hashes.get(name, b"")
        right = not expected or hmac.compare_digest(expected, self._hash(password))
        if not known or not right:
            raise QueryError(AUTHENTICATION_FAILED, f"{name}: Authentication failed: password is incorrect, or there is no such user.")
        return name

    def _hash(self, password: str) -> bytes:
        return hashlib.sha256(self._salt + password.encode()).digest()


def credentials(headers: Headers, own: Mapping[str, str]) -> tuple[str, str]:
    """User and password from the X-ClickHouse headers, HTTP basic authentication or the URL, in that order."""
    if user := headers.get("X-ClickHouse-User"):
        return user, headers.get("X-ClickHouse-Key") or ""
    scheme, _, value = (headers.get("Authorization") or "").partition(" ")
    if scheme.lower() == "basic":
        return _basic(value)
    if scheme:
        raise QueryError(NOT_IMPLEMENTED, "Authorization must be Basic; the embedded endpoint knows no tokens")
    return own.get("user", ""), own.get("password", "")


def _basic(value: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise QueryError(AUTHENTICATION_FAILED, "the Authorization header is not valid base64") from None
    return user, password


def parse(method: str, query_string: str, form: Mapping[str, str], headers: Headers, users: Users) -> Request:
    """Read a request. Raises QueryError for credentials, encodings and features that this endpoint refuses."""
    given = dict(parse_qsl(query_string, keep_blank_values=True, errors="surrogateescape")) | dict(form)
    own = {name: value for name, value in given.items() if name in OWN}
    _refuse_odd_names(own)
    user = users.check(*credentials(headers, own))
    _refuse_native_compression(own)
    return Request(
        method=method,
        user=user,
        query_id=own.get("query_id") or str(uuid.uuid4()),
        sql=own.get("query", ""),
        database=own.get("database") or headers.get("X-ClickHouse-Database") or "",
        default_format=own.get("default_format") or headers.get("X-ClickHouse-Format") or "TabSeparated",
        params={name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")},
        settings={name: value for name, value in given.items() if name not in OWN and not name.startswith("param_")},
        own=own,
        accept_encoding=(headers.get("Accept-Encoding") or "") if own.get("enable_http_compression", "1") in ("1", "true") else "",
    )


def parse_form(content_type: str, body: bytes) -> dict[str, str]:
    """The fields of a multipart form. Raises QueryError for attached files, which would be external tables."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    if not message.is_multipart():
        raise QueryError(BAD_BODY, "the multipart form is malformed")
    fields: dict[str, str] = {}
    for part in message.iter_parts():
        if part.get_filename():
            raise QueryError(NOT_IMPLEMENTED, "external tables are not supported by the embedded endpoint; insert into a table instead")
        name = part.get_param("name", header="content-disposition")
        payload = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(payload, bytes):
            fields[name] = payload.decode(errors="surrogateescape")
    return fields


def _refuse_odd_names(own: Mapping[str, str]) -> None:
    """They go into response headers, where a line end would begin another header."""
    if not own.get("query_id", "").isprintable() or not re.fullmatch(r"\w*", own.get("default_format", "")):
        raise QueryError(BAD_ARGUMENTS, "query_id and default_format must be plain text")


def _refuse_native_compression(own: Mapping[str, str]) -> None:
    for name in ("compress", "decompress"):
        if own.get(name, "0").lower() not in ("", "0", "false"):
            raise QueryError(
                NOT_IMPLEMENTED, f"{name}=1 (native block compression) is not supported; use Content-Encoding and Accept-Encoding"
            )

"""What the endpoint answers when it refuses or the engine fails: ClickHouse's code, name and HTTP status."""

from __future__ import annotations

import re
from http import HTTPStatus

from millrace.schemas.errors import MillraceError

SYNTAX_ERROR = (62, "SYNTAX_ERROR")
NOT_IMPLEMENTED = (48, "NOT_IMPLEMENTED")
READONLY = (164, "READONLY")
UNKNOWN_FORMAT = (73, "UNKNOWN_FORMAT")
BAD_ARGUMENTS = (36, "BAD_ARGUMENTS")
ACCESS_DENIED = (497, "ACCESS_DENIED")
AUTHENTICATION_FAILED = (516, "AUTHENTICATION_FAILED")
TOO_MANY_QUERIES = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
SAME_ID_RUNNING = (216, "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING")
TOO_LARGE = (307, "TOO_MANY_BYTES")
MEMORY_LIMIT = (241, "MEMORY_LIMIT_EXCEEDED")
BAD_BODY = (354, "INCORRECT_DATA")
STOPPING = (236, "ABORTED")
NETWORK_ERROR = 210
ENGINE_FAILED = (1001, "STD_EXCEPTION")

MESSAGE = re.compile(r"Code: (\d+)\. ?(.*?)(?:\(([A-Z][A-Z0-9_]+)\))?\s*$", re.DOTALL)

STATUS = {
    **dict.fromkeys((516, 497, 192, 193, 194, 511), HTTPStatus.FORBIDDEN),
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 69, 72, 117, 130, 164, 354, 386, 456, 457, 636), HTTPStatus.BAD_REQUEST),
    307: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    **dict.fromkeys((16, 46, 47, 50, 56, 60, 73, 75, 81, 115), HTTPStatus.NOT_FOUND),
    159: HTTPStatus.REQUEST_TIMEOUT,
    236: HTTPStatus.SERVICE_UNAVAILABLE,
    202: HTTPStatus.TOO_MANY_REQUESTS,
    48: HTTPStatus.NOT_IMPLEMENTED,
    241: HTTPStatus.INTERNAL_SERVER_ERROR,
}


class QueryError(MillraceError):
    """One request that fails: ``code`` and ``name`` as a ClickHouse server would give them."""

    def __init__(self, kind: tuple[int, str], text: str) -> None:
        super().__init__(text)
        self.code, self.name = kind

    @property
    def status(self) -> int:
        return STATUS.get(self.code, HTTPStatus.INTERNAL_SERVER_ERROR)

    def body(self, version: str) -> bytes:
        """The answer's text, in the form that every client's parser expects."""
        return f"Code: {self.code}. DB::Exception: {self} ({self.name}) (version {version} (chdb))\n".encode()


def from_engine(message: str) -> QueryError:
    """The engine's message as a QueryError with its own code and name."""
    start = message.find("Code: ")
    found = MESSAGE.match(message[start:]) if start >= 0 else None
    if found is None:
        return QueryError(ENGINE_FAILED, message.strip() or "the engine failed without a message")
    text = found[2].strip().removeprefix("DB::Exception:").strip()
    return QueryError((int(found[1]), found[3] or "UNKNOWN_EXCEPTION"), text)

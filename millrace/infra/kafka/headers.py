"""The headers of messages, whatever their producers called them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import Message

from millrace.schemas.record import Headers
from millrace.schemas.wire import UNREADABLE_HEADERS

_read: Any = Message.headers


def headers_of(messages: Iterable[Message]) -> list[Headers | None]:
    """The headers of each message; ``UNREADABLE_HEADERS`` where a name is not UTF-8, which no codec takes. Ask once for each message.

    Other clients send names as raw bytes. For one that is not UTF-8, confluent-kafka 2.16 returns a list with a hole in it and leaves an
    error pending. Python 3.11 calls a method from its byte code without looking for that, so that it comes up in any later place, or ends
    the process; ``map`` looks. The message keeps its list: to free that is safe, to look into it is not.
    """
    calls, found = map(_read, messages), list[Headers | None]()
    while True:
        try:
            found.extend(calls)  # goes on behind the message that failed, because both keep what they have
        except (SystemError, UnicodeError):
            found.append(UNREADABLE_HEADERS)
        else:
            return found

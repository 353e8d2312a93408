"""Publishes records as clients in other languages may: header names are raw bytes there, which Python's client does not send."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import cimpl

TOPIC, PARTITION, VALUE, KEY, MSGFLAGS, HEADERS = 1, 3, 4, 5, 7, 10
COPY = 2
PRODUCER = 0
FLUSH_MS = 20_000


class Memory(ctypes.Structure):
    """A run of bytes."""

    _fields_ = [("address", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class Content(ctypes.Union):
    """The content of one argument, by its kind."""

    _fields_ = [
        ("text", ctypes.c_char_p),
        ("whole", ctypes.c_int),
        ("partition", ctypes.c_int32),
        ("memory", Memory),
        ("pointer", ctypes.c_void_p),
        ("padding", ctypes.c_char * 64),
    ]


class Argument(ctypes.Structure):
    """``rd_kafka_vu_t``: one argument of ``rd_kafka_produceva``."""

    _fields_ = [("kind", ctypes.c_int), ("content", Content)]


class BareProducer:
    """The C client beside the one that Python's is built on: it takes header names as bytes."""

    def __init__(self, address: str) -> None:
        self._library = _library()
        configuration = self._library.rd_kafka_conf_new()
        words = ctypes.create_string_buffer(512)
        for name, value in ((b"bootstrap.servers", address.encode()), (b"linger.ms", b"0")):
            self._checked(self._library.rd_kafka_conf_set(configuration, name, value, words, len(words)) == 0, words.value)
        self._handle = self._library.rd_kafka_new(PRODUCER, configuration, words, len(words))
        self._checked(bool(self._handle), words.value)

    def send(self, topic: str, value: bytes, key: bytes, partition: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Hand one record over."""
        found = self._library.rd_kafka_headers_new(len(headers))
        for name, content in headers:
            self._checked(self._library.rd_kafka_header_add(found, name, len(name), content, len(content)) == 0, b"header")
        arguments = (Argument * 6)(
            Argument(TOPIC, Content(text=topic.encode())),
            Argument(PARTITION, Content(partition=partition)),
            Argument(VALUE, Content(memory=Memory(value, len(value)))),
            Argument(KEY, Content(memory=Memory(key, len(key)))),
            Argument(MSGFLAGS, Content(whole=COPY)),
            Argument(HEADERS, Content(pointer=found)),
        )
        self._checked(not self._library.rd_kafka_produceva(self._handle, arguments, len(arguments)), b"the record was not taken")

    def close(self) -> None:
        """Wait until the broker has all of it."""
        self._checked(self._library.rd_kafka_flush(self._handle, FLUSH_MS) == 0, b"not all was sent")
        self._library.rd_kafka_destroy(self._handle)

    def _checked(self, good: bool, words: bytes) -> None:
        if not good:
            raise AssertionError(words.decode())


def _library() -> Any:
    """The library that Python's client has loaded already: in its wheel it lies beside the package, else the system's own is found."""
    beside = Path(cimpl.__file__).parents[1] / "confluent_kafka.libs"
    bundled = sorted(beside.glob("librdkafka*"))
    library = ctypes.CDLL(str(bundled[0]) if bundled else cimpl.__file__)
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new", "rd_kafka_produceva"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_headers_new.argtypes = [ctypes.c_size_t]
    library.rd_kafka_header_add.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_ssize_t, ctypes.c_char_p, ctypes.c_ssize_t]
    library.rd_kafka_produceva.argtypes = [ctypes.c_void_p, ctypes.POINTER(Argument), ctypes.c_size_t]
    library.rd_kafka_flush.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    return library

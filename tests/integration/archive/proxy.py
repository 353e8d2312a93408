"""A TCP proxy in front of ClickHouse that loses answers: the server does what it was asked, and nobody hears of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class LossyProxy:
    """Forwards to ``url``. ``lose(n)`` cuts the next n connections that carry an insert, once the server has answered."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._target = (str(where.hostname), int(where.port or 80))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._to_lose = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> LossyProxy:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # not connected: it only listens
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def lose(self, count: int) -> None:
        """Lose the answers to the next so many inserts."""
        with self._lock:
            self._to_lose = count

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            inserting = threading.Event()
            back = threading.Thread(target=self._answers, args=(server, client, inserting), daemon=True)
            back.start()
            with suppress(OSError):  # either side went away
                while data := client.recv(1 << 16):
                    if b"INSERT" in data:
                        inserting.set()
                    server.sendall(data)
                server.shutdown(socket.SHUT_RDWR)
            back.join(5)

    def _answers(self, server: socket.socket, client: socket.socket, inserting: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if inserting.is_set() and self._takes():
                    break
                inserting.clear()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _takes(self) -> bool:
        with self._lock:
            if not self._to_lose:
                return False
            self._to_lose -= 1
            self.lost += 1
            return True

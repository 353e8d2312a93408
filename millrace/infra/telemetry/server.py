"""A small HTTP server on a daemon thread: GET of a few fixed pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from millrace.schemas.errors import PortTaken

Pages = Mapping[str, Callable[[], tuple[int, str, bytes]]]


class Server:
    """Serves the pages until it is closed. Port 0 takes any free one; ``port`` says which."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        handler = type("Handler", (_Handler,), {"pages": pages})
        try:
            self._http = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise PortTaken(f"cannot serve metrics on {host}:{port}: {error.strerror}. Set telemetry.port to another, or to 0.") from None
        self._http.daemon_threads = True
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="telemetry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and free the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    pages: Pages
    timeout = 10

    def do_GET(self) -> None:
        page = self.pages.get(self.path.split("?")[0])
        status, content_type, body = page() if page else (404, "text/plain", b"there are: " + " ".join(self.pages).encode())
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Being asked for metrics is not worth a log line."""

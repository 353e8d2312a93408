"""Does the endpoint keep its limits, and let go of what a lost client left behind?"""

from __future__ import annotations

import gzip
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import psutil
import pytest

from tests.contract.clickhouse.endpoint import Endpoint, ask, expect, metric

FOREVER = "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)"
SLOW = b"POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n1\n"
RUNNING = "SELECT count() FROM system.processes WHERE query LIKE '%cityHash64(number)%' AND query NOT LIKE '%processes%'"


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint with two places for queries, one of them for analysts, one for inserts, and small bodies."""
    limits = {"queries_at_once": 2, "analyst_queries_at_once": 1, "inserts_at_once": 1, "queue_seconds": 0.4}
    sizes = {"body_bytes": 1 << 20, "spool_bytes": 3 << 19, "result_bytes": 1 << 20, "connections": 12, "memory_bytes": 800 << 20}
    with Endpoint(tmp_path_factory.mktemp("narrow") / "data", **limits, **sizes, keep_alive_seconds=3) as running:
        expect(running.url, "CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
        yield running


def send(url: str, request: bytes) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
    connection.sendall(request)
    return connection


def post(sql: str, **params: str) -> bytes:
    return f"POST /?{urlencode(params)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sql)}\r\n\r\n{sql}".encode()


def becomes(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < 60
        time.sleep(0.02)


@contextmanager
def unread(url: str, count: int = 1, **params: str) -> Iterator[None]:
    """Queries that hold their places while the block lasts: their answers have no end and nobody reads them, so they take no time."""
    with ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(send(url, post("SELECT number FROM numbers(1000000000000) FORMAT TSV", **params)))
            assert connection.recv(12) == b"HTTP/1.1 200"
        yield
        assert metric(url, "running") >= count
    becomes(lambda: metric(url, "running") == 0)


def is_running(url: str, count: int) -> Callable[[], bool]:
    return lambda: ask(url, RUNNING).text == f"{count}\n"


def test_queries_run_in_parallel(endpoint: Endpoint) -> None:
    begun = time.monotonic()
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: ask(endpoint.url, "SELECT sleep(2)"), range(6)))
    assert [reply.text for reply in replies] == ["0\n"] * 6
    assert time.monotonic() - begun < 11  # one after another they take 12 s


def test_a_query_too_many_waits_and_is_then_refused(narrow: Endpoint) -> None:
    with unread(narrow.url, 2):
        refused = ask(narrow.url, "SELECT 1")
        assert (refused.code, refused.status) == (202, 429)
        assert "Maximum: 2" in refused.text
    assert ask(narrow.url, "SELECT 1").text == "1\n"


def test_inserts_have_places_of_their_own(narrow: Endpoint) -> None:
    with unread(narrow.url, 2):
        assert ask(narrow.url, "INSERT INTO t FORMAT TSV\n1\n").status == 200


def test_analysts_leave_a_place_for_workers(narrow: Endpoint) -> None:
    with unread(narrow.url, user="analyst"), ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(ask, narrow.url, "SELECT 1", user="analyst") for _ in range(2)]
        for _ in range(20):
            assert ask(narrow.url, "SELECT 1").text == "1\n"
        assert [one.result().code for one in waiting] == [202, 202]


def test_a_slow_sender_holds_no_place(narrow: Endpoint) -> None:
    with send(narrow.url, SLOW), send(narrow.url, SLOW):
        assert ask(narrow.url, "INSERT INTO t FORMAT TSV\n1\n").status == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
def test_a_body_past_the_limit_is_refused(narrow: Endpoint, encoding: str) -> None:
    rows = b"1\n" * (600 << 10)
    compress: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    body = compress[encoding](rows)
    before = expect(narrow.url, "SELECT count() FROM t")
    reply = ask(narrow.url, body, headers={"Content-Encoding": encoding}, query="INSERT INTO t FORMAT TSV")
    assert (reply.code, reply.status) == (307, 413)
    assert expect(narrow.url, "SELECT count() FROM t") == before


def test_bodies_together_have_a_limit_too(narrow: Endpoint) -> None:
    body = b"1\n" * (500 << 10)
    head = f"POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with send(narrow.url, head + body[:-2]):
        becomes(lambda: metric(narrow.url, "spooled_bytes") > 600_000)  # so much that a second body is too much
        assert ask(narrow.url, body, query="INSERT INTO t FORMAT TSV").code == 241
    becomes(lambda: metric(narrow.url, "spooled_bytes") == 0)
    assert ask(narrow.url, body, query="INSERT INTO t FORMAT TSV").status == 200


def test_a_result_that_must_be_whole_has_a_limit(narrow: Endpoint) -> None:
    assert ask(narrow.url, "SELECT number FROM numbers(1000000) FORMAT Parquet").code == 396
    assert len(ask(narrow.url, "SELECT number FROM numbers(1000000) FORMAT RowBinary").body) == 8_000_000


def test_the_engines_memory_has_a_limit(narrow: Endpoint) -> None:
    assert ask(narrow.url, "SELECT length(groupArray(toString(number))) FROM numbers(100000000)").code == 241
    assert ask(narrow.url, "SELECT 1").text == "1\n"


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Endpoint]:
    """An endpoint that does nothing else, so that its memory can be measured."""
    with Endpoint(tmp_path / "data") as running:
        yield running


def test_a_big_stream_takes_little_memory(alone: Endpoint) -> None:
    process = psutil.Process(alone.process.pid)
    peak, done = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(0.05):
            peak = max(peak, process.memory_info().rss)

    expect(alone.url, "SELECT 1")
    before = process.memory_info().rss
    watcher = threading.Thread(target=look)
    watcher.start()
    connection = send(alone.url, post("SELECT number, number FROM numbers(20000000) FORMAT RowBinary"))
    received = 0
    while (piece := connection.recv(1 << 20)) and not piece.endswith(b"\r\n0\r\n\r\n"):
        received += len(piece)
    connection.close()
    done.set()
    watcher.join()
    assert received > 310_000_000
    assert peak - before < 150_000_000


def test_connections_have_a_limit(narrow: Endpoint) -> None:
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(send(narrow.url, SLOW))
        one_more = stack.enter_context(send(narrow.url, post("SELECT 1")))
        assert b"503 Service Unavailable" in one_more.recv(4096)
    becomes(lambda: ask(narrow.url, "SELECT 1").status == 200)


def test_an_idle_connection_is_closed(narrow: Endpoint) -> None:
    with send(narrow.url, b"GET /ping HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert b"Ok." in connection.recv(4096)
        assert connection.recv(4096) == b""


@pytest.mark.parametrize(
    "sql",
    [FOREVER, FOREVER + " FORMAT JSON", "INSERT INTO FUNCTION null('a UInt64') " + FOREVER, f"SELECT * FROM ({FOREVER}) FORMAT Native"],
)
def test_a_client_that_goes_away_ends_its_query(endpoint: Endpoint, sql: str) -> None:
    connection = send(endpoint.url, post(sql))
    becomes(is_running(endpoint.url, 1))
    connection.close()
    becomes(is_running(endpoint.url, 0))


def test_a_client_that_goes_away_in_the_middle_of_a_stream_ends_its_query(endpoint: Endpoint) -> None:
    connection = send(endpoint.url, post("SELECT number, cityHash64(number) FROM numbers(1000000000000) FORMAT TSV"))
    assert connection.recv(1 << 16)
    becomes(is_running(endpoint.url, 1))
    connection.close()
    becomes(is_running(endpoint.url, 0))


def test_a_client_that_goes_away_half_way_through_its_body_stores_nothing(endpoint: Endpoint) -> None:
    expect(endpoint.url, "CREATE TABLE IF NOT EXISTS half (a UInt32) ENGINE = MergeTree ORDER BY a")
    send(
        endpoint.url, b"POST /?query=INSERT+INTO+half+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n1\n2\n"
    ).close()
    endpoint.wait_for("query", 20, error=210)
    assert expect(endpoint.url, "SELECT count() FROM half") == "0\n"


def test_one_query_id_runs_once_at_a_time(endpoint: Endpoint) -> None:
    with unread(endpoint.url, query_id="same"):
        assert ask(endpoint.url, "SELECT 1", query_id="same").code == 216
    for _ in range(20):  # who has an answer, or an error, may use the id again at once
        assert ask(endpoint.url, "SELECT 1", query_id="same").status == 200
        assert ask(endpoint.url, "SELECT throwIf(1)", query_id="same").code == 395


def test_many_short_queries_leave_nothing_open(endpoint: Endpoint) -> None:
    process = psutil.Process(endpoint.process.pid)
    expect(endpoint.url, "CREATE TABLE IF NOT EXISTS many (a UInt32) ENGINE = MergeTree ORDER BY a")
    becomes(lambda: ask(endpoint.url, "SELECT 1").status == 200)
    before = process.num_fds()
    for number in range(60):
        ask(endpoint.url, f"INSERT INTO many FORMAT TSV\n{number}\n")
        ask(endpoint.url, "SELEC")
    becomes(lambda: process.num_fds() - before < 20)
    becomes(lambda: not [path for path in Path(f"/proc/{process.pid}/fd").iterdir() if "millrace-insert" in str(path.resolve())])

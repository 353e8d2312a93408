"""How does the endpoint begin and end: ports, paths, signals, and kill -9 in the middle of inserts?"""

from __future__ import annotations

import http.client
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.contract.clickhouse.endpoint import ROOT, Endpoint, ask, expect, under_way

BLOCK_ROWS = 10_000


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "millrace.infra.embedded.clickhouse", "--data", str(folder), *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment or None, check=False)


def test_a_path_in_use_is_said_plainly(endpoint: Endpoint) -> None:
    ended = run("--port", "0", folder=endpoint.folder)
    assert ended.returncode == 3
    assert f"path in use: {endpoint.folder} is owned by process {endpoint.process.pid}" in ended.stderr
    assert "--data" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_path_held_by_another_program_is_said_plainly(tmp_path: Path) -> None:
    holder = f"import chdb, time; c = chdb.connect({str(tmp_path / 'store')!r}); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen((sys.executable, "-c", holder), stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            ended = run("--port", "0", folder=tmp_path)
        finally:
            process.kill()
    assert ended.returncode == 3
    assert "path in use" in ended.stderr


def test_a_port_in_use_is_said_plainly(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ended = run("--port", str(port), folder=tmp_path)
    assert ended.returncode == 3
    assert f"port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org"])
def test_another_host_than_loopback_is_refused(tmp_path: Path, host: str) -> None:
    ended = run("--port", "0", folder=tmp_path / "never", MILLRACE_ENDPOINT__HOST=host)
    assert ended.returncode == 2
    assert "loopback only" in ended.stderr
    assert not (tmp_path / "never").exists()


def test_a_config_of_the_current_folder_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "config.xml").write_text("<clickhouse><not xml")
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; from millrace.infra.settings import EndpointSettings; "
        "from millrace.infra.embedded.clickhouse.engine import Engine; "
        "print(Engine(Path('data').resolve(), EndpointSettings(), 'millrace').version)"
    )
    command = (sys.executable, "-c", program)
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(".") == 3


def test_sigterm_lets_a_running_query_finish(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "data") as endpoint, ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, endpoint.url, "SELECT sum(sleep(1)), 'whole' FROM numbers(4) SETTINGS max_block_size = 1")
        under_way(endpoint.url, 1)
        assert endpoint.stop() == 0
        assert running.result().text == "0\twhole\n"
        assert endpoint.wait_for("stopped", 10)["finished"] is True
        with pytest.raises(OSError, match=r"refused"):
            ask(endpoint.url, "SELECT 1")


def test_while_it_drains_nothing_new_begins(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "data") as endpoint:
        address = urlsplit(endpoint.url)
        kept, slow = (http.client.HTTPConnection(address.hostname or "", address.port, timeout=60) for _ in range(2))
        kept.request("GET", "/ping")
        assert kept.getresponse().read() == b"Ok.\n"
        slow.request("POST", "/", "SELECT number FROM numbers(5000000) FORMAT RowBinary")
        running = slow.getresponse()  # no buffer holds all of it: it runs until it is read
        endpoint.process.terminate()
        endpoint.wait_for("draining", 20)
        kept.request("POST", "/", "SELECT 1")
        refused = kept.getresponse()
        assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"], refused.headers["Connection"]) == (503, "236", "close")
        refused.read()
        kept.close()
        assert len(running.read()) == 8 * 5_000_000
        slow.close()
        assert endpoint.process.wait(30) == 0


def test_the_other_loopback(tmp_path: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists() or "0" * 31 + "1" not in Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6 loopback")
    with Endpoint(tmp_path / "data", host="::1") as endpoint:
        assert endpoint.url.startswith("http://[::1]:")
        assert expect(endpoint.url, "SELECT 1") == "1\n"


def test_sigterm_ends_what_does_not_finish_in_time(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "data", drain_seconds=0.5) as endpoint, ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, endpoint.url, "SELECT sum(cityHash64(number)) FROM numbers(1000000000000)")
        under_way(endpoint.url, 1)
        begun = time.monotonic()
        assert endpoint.stop() == 0
        assert time.monotonic() - begun < 15  # the default is to wait for 20 s
        assert running.result().code == 394
        assert endpoint.wait_for("stopped", 10)["finished"] is False


def test_data_survives_a_restart(tmp_path: Path) -> None:
    with Endpoint(tmp_path / "data") as endpoint:
        expect(endpoint.url, "CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
        expect(endpoint.url, "INSERT INTO t FORMAT TSV\n1\n2\n")
        endpoint.stop()
        endpoint.start()
        assert expect(endpoint.url, "SELECT count() FROM t") == "2\n"


def insert(url: str, number: int) -> bool:
    """Send block ``number`` with its token; whether it was acknowledged."""
    rows = b"".join(b"%d\n" % row for row in range(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS))
    settings: dict[str, Any] = {
        "insert_deduplication_token": f"t:0:{number}",
        "async_insert": 0,
        "deduplicate_blocks_in_dependent_materialized_views": 1,
    }
    try:
        return ask(url, rows, query="INSERT INTO t FORMAT TSV", wait_end_of_query=1, **settings).status == 200
    except OSError:
        return False


def test_kill_in_the_middle_of_inserts_loses_no_acknowledged_block(tmp_path: Path) -> None:
    window = "SETTINGS non_replicated_deduplication_window = 1000"
    random_ = random.Random(7)
    with Endpoint(tmp_path / "data") as endpoint:
        expect(endpoint.url, f"CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a {window}")
        expect(endpoint.url, f"CREATE TABLE s (n AggregateFunction(count)) ENGINE = AggregatingMergeTree ORDER BY tuple() {window}")
        expect(endpoint.url, "CREATE MATERIALIZED VIEW mv TO s AS SELECT countState() AS n FROM t")
        number = 0
        for _ in range(5):
            begun, killer = number, threading.Timer(random_.uniform(0.05, 0.3), endpoint.kill)
            while insert(endpoint.url, number):
                number += 1
                if number == begun + 2:  # however slow the machine: it is killed among inserts, not before them
                    killer.start()
            killer.join()
            endpoint.start()
            stored = int(expect(endpoint.url, "SELECT count() FROM t"))
            assert stored in (number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)
            # The last acknowledged and the one under way, again: the same bytes, the same tokens.
            for again in (max(number - 1, 0), number):
                assert insert(endpoint.url, again)
            number += 1
            for count in ("count() FROM t", "uniqExact(a) FROM t", "countMerge(n) FROM s"):
                assert int(expect(endpoint.url, f"SELECT {count}")) == number * BLOCK_ROWS
        assert number >= 15

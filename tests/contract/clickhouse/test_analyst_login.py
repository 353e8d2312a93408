"""Can ``millrace sql`` log in as the analyst of any server, and does the documented SQL make one that is equal to the embedded one?"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files

import pytest

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.migrate import migrate
from millrace.infra.embedded.clickhouse.analyst import SYSTEM_TABLES
from millrace.infra.embedded.stack_file import Addresses
from millrace.infra.settings import ClickHouseSettings, EndpointSettings, Secret, convert, process_environment
from millrace.workers import addresses
from millrace.workers.addresses import as_analyst
from tests.contract.clickhouse.endpoint import ROOT, Endpoint, ask

PASSWORD = "for-analysts"
MISTAKEN = "for-somebody-else"
COUNT = "SELECT count() AS n FROM v_decisions"
GUIDE = (ROOT / "docs" / "operations.md").read_text().split("## An analyst on a server of your own")[1].split("\n## ")[0]
STATEMENTS = [one.strip() for one in re.findall(r"```sql\n(.*?)```", GUIDE, re.DOTALL)[0].split(";\n") if one.strip()]
NO_PLACE_FOR_A_PROFILE, NO_SUCH_PROFILE, ROLES_ARE_A_FILE = 514, 180, 495


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """An endpoint that asks analysts for a password, with all views."""
    with Endpoint(tmp_path_factory.mktemp("login") / "data", analyst_password=PASSWORD) as running:
        migrate(Client(ClickHouseSettings(address=running.url)))
        yield running


def sql(running: Endpoint, *arguments: str, **settings: str) -> tuple[int, str, str]:
    """Exit code, output and errors of ``millrace sql`` against this address, as against a server of one's own."""
    outside = {name: value for name, value in process_environment().items() if not name.startswith("MILLRACE_")}
    environment = outside | {"MILLRACE_CLICKHOUSE": running.url} | {f"MILLRACE_{key.upper()}": value for key, value in settings.items()}
    command = [sys.executable, "-m", "millrace", "sql", "--json", *arguments, COUNT]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_analysts_user_and_password_are_settings(guarded: Endpoint) -> None:
    code, printed, _ = sql(guarded, clickhouse__analyst_password=PASSWORD)
    assert (code, json.loads(printed)) == (0, [{"n": 0}])
    guarded.wait_for("query", 5, user="analyst", kind="select")


@pytest.mark.parametrize(
    "settings",
    [
        {"clickhouse__analyst_user": "reader", "clickhouse__analyst_password": PASSWORD},
        {"clickhouse__analyst_password": MISTAKEN},
        {"endpoint__analyst_password": PASSWORD},
    ],
    ids=["no such user", "wrong password", "the password of another place"],
)
def test_an_analyst_who_is_not_let_in_is_told_what_to_do(guarded: Endpoint, settings: dict[str, str]) -> None:
    code, printed, said = sql(guarded, **settings)
    assert (code, printed) == (2, "")
    assert settings.get("clickhouse__analyst_user", "analyst") in said
    words = " ".join(said.split())
    assert all(remedy in words for remedy in ("docs/operations.md", "clickhouse.analyst_password", "--admin")), said
    assert PASSWORD not in said
    assert MISTAKEN not in said


def test_without_an_analyst_the_settings_own_user_may_be_asked(guarded: Endpoint) -> None:
    code, printed, _ = sql(guarded, "--admin", clickhouse__analyst_user="reader")
    assert (code, json.loads(printed)) == (0, [{"n": 0}])


def test_the_stacks_own_password_goes_to_the_stack_and_to_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    stack = Addresses(kafka="127.0.0.1:1", clickhouse="http://127.0.0.1:2")
    monkeypatch.setattr(addresses, "connected", lambda settings: addresses.with_addresses(settings, stack))
    known = {"endpoint": {"analyst_password": PASSWORD}}
    of_stack, of_another = as_analyst(convert(known)), as_analyst(convert(known | {"clickhouse": {"address": "http://elsewhere:8123"}}))
    assert (of_stack.address, of_stack.user, of_stack.password) == (stack.clickhouse, "analyst", Secret(PASSWORD))
    assert (of_another.address, of_another.user, of_another.password) == ("http://elsewhere:8123", "analyst", Secret())


@pytest.mark.parametrize(
    ("begins", "code"),
    [
        ("CREATE SETTINGS PROFILE", NO_PLACE_FOR_A_PROFILE),
        ("CREATE USER", NO_SUCH_PROFILE),
        ("GRANT", ROLES_ARE_A_FILE),
    ],
)
def test_the_engine_understands_what_the_guide_tells_to_run(guarded: Endpoint, begins: str, code: int) -> None:
    """The embedded engine has no storage for users: it gets as far as looking for one."""
    (statement,) = [one for one in STATEMENTS if one.startswith(begins)]
    assert ask(guarded.url, statement).code == code


def test_the_guide_grants_what_the_embedded_analyst_is_granted() -> None:
    roles = (files("millrace.infra.embedded.clickhouse") / "roles.xml").read_text()
    embedded = re.findall(r"<query>(.*?)</query>", roles.split("<analyst>")[1].split("</analyst>")[0])
    assert [one for one in STATEMENTS if one.startswith("GRANT")] == [
        f"{query.format(database='millrace')} TO analyst" for query in embedded
    ]
    assert len(STATEMENTS) == 3


def test_the_guide_limits_what_the_embedded_endpoint_limits() -> None:
    caps = EndpointSettings()
    (profile,) = [one for one in STATEMENTS if one.startswith("CREATE SETTINGS PROFILE")]
    assert {name: float(value) for name, value in re.findall(r"(\w+) = (\d+)", profile)} == {
        "readonly": 1,
        "max_execution_time": caps.analyst_execution_seconds,
        "max_memory_usage": caps.analyst_memory_bytes,
        "max_threads": caps.analyst_threads,
        "max_concurrent_queries_for_user": caps.analyst_queries_at_once,
    }


def test_the_guide_names_every_table_of_the_system_that_an_analyst_may_read() -> None:
    text = (ROOT / "docs" / "analysts.md").read_text()
    (listed,) = re.findall(r"of the database `system`, which describe the server: ([^.]*)\.", " ".join(text.split()))
    assert set(re.findall(r"`(\w+)`", listed)) == SYSTEM_TABLES

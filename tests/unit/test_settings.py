"""Settings: where they come from, what is refused, what is never shown, and that each is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from millrace.infra.settings import Secret, Settings, convert, load, shown, to_plain
from millrace.infra.telemetry import Metrics
from millrace.schemas.errors import SettingsError

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
PLAIN = to_plain(Settings())


def keys() -> Iterator[tuple[str, str]]:
    """Every section and key; the section is empty for a key at the top."""
    for name, value in PLAIN.items():
        if isinstance(value, dict):
            yield from ((name, key) for key in value)
        else:
            yield "", name


def file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_stand_where_nothing_is_said() -> None:
    assert load(environ={}) == Settings()


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = file(tmp_path, "topic_prefix = 'a-'\n[runner]\npoll_records = 7\ngather_seconds = 0.5\n")
    settings = load(environ={"MILLRACE_SETTINGS": str(path), "MILLRACE_RUNNER__POLL_RECORDS": "9"})
    assert (settings.topic_prefix, settings.runner.gather_seconds, settings.runner.poll_records) == ("a-", 0.5, 9)
    assert settings.runner.idle_seconds == Settings().runner.idle_seconds


def test_short_names_of_addresses() -> None:
    settings = load(environ={"MILLRACE_KAFKA": "k:1", "MILLRACE_CLICKHOUSE": "http://c:2", "MILLRACE_DATA": "/d", "HOME": "/root"})
    assert (settings.kafka.address, settings.clickhouse.address, settings.stack.folder) == ("k:1", "http://c:2", Path("/d"))


def test_client_settings_pass_through(tmp_path: Path) -> None:
    path = file(tmp_path, '[kafka.client]\n"sasl.mechanism" = "PLAIN"\n"enable.ssl.certificate.verification" = true\n')
    assert load(path, {}).kafka.client == {"sasl.mechanism": "PLAIN", "enable.ssl.certificate.verification": True}


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("isolation.level", r"`isolation.level` in \[kafka.client\] is set by millrace, because its guarantees rest on it: leave it out"),
        ("linger.ms", "because its speed rests on it"),
        ("queue.buffering.max.ms", "because its speed rests on it"),
        ("bootstrap.servers", "use kafka.address"),
        ("session.timeout.ms", "use runner.session_timeout_seconds"),
    ],
)
def test_what_millrace_sets_itself_is_refused_in_client_settings(tmp_path: Path, key: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(file(tmp_path, f'[kafka.client]\n"{key}" = "1"\n'), {})


def test_a_model_has_settings_of_its_own(tmp_path: Path) -> None:
    path = file(tmp_path, "[inference.models.approve]\nwait_seconds = 0.01\n")
    assert load(path, {}).inference.models["approve"].wait_seconds == 0.01


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"MILLRACE_RUNNER__POLL_RECODS": "9"}, "unknown field `poll_recods`"),
        ({"MILLRACE_RUNER__POLL_RECORDS": "9"}, "unknown field `runer`"),
        ({"MILLRACE_RUNNER__POLL_RECORDS": "many"}, r"Expected `int`.*\$\.runner\.poll_records"),
        ({"MILLRACE_RUNNER__POLL_RECORDS": "0"}, r">= 1.*\$\.runner\.poll_records"),
        ({"MILLRACE_RUNNER__DEAD_LETTER_RATIO": "1.5"}, r"<= 1.*\$\.runner\.dead_letter_ratio"),
        ({"MILLRACE_ARCHIVER__BLOCK_ROWS": "50001"}, r"<= 50000.*\$\.archiver\.block_rows"),
        ({"MILLRACE_LIMITS__FEATURE": "3"}, "unknown field `feature`"),
        ({"MILLRACE_SETTINGS": "/nowhere/settings.toml"}, "No such file.*Check MILLRACE_SETTINGS"),
        ({"MILLRACE_KAFKA": "k:1", "MILLRACE_KAFKA__ADDRESS__HOST": "x"}, "address is a value, not a section"),
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_name(environ: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load(environ=environ)


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings\.toml is not TOML"):
        load(file(tmp_path, "[runner"), {})


def test_other_variables_are_none_of_ours() -> None:
    assert load(environ={"PATH": "/bin", "MILLRACER_X": "1"}) == Settings()


def test_secrets_are_read_but_never_shown() -> None:
    settings = load(environ={"MILLRACE_CLICKHOUSE__PASSWORD": "hunter2", "MILLRACE_ENDPOINT__ANALYST_PASSWORD": "swordfish"})
    assert settings.clickhouse.password.reveal() == "hunter2"
    shown = f"{settings!r} {to_plain(settings)} {settings.clickhouse.password}"
    assert "hunter2" not in shown
    assert "swordfish" not in shown
    assert to_plain(settings)["clickhouse"]["password"] == "***"
    assert Secret("a") == Secret("a") != Secret("b")


def test_what_is_handed_to_the_kafka_client_and_stands_in_addresses_is_masked_too(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        '[kafka.client]\n"sasl.username" = "me"\n"sasl.password" = "hunter2"\n"ssl.key.pem" = "hunter3"\n'
        '"oauthbearer.client.secret" = "hunter4"\n'
        '[clickhouse]\naddress = "https://me:hunter5@host:8443/x"\n',
    )
    plain = to_plain(load(path, {}))
    assert "hunter" not in json.dumps(plain)
    assert plain["kafka"]["client"]["sasl.username"] == "me"
    assert plain["clickhouse"]["address"] == "https://***@host:8443/x"


def test_each_setting_is_shown_with_where_it_comes_from(tmp_path: Path) -> None:
    path = file(
        tmp_path, "topic_prefix = 'a-'\n[runner]\npoll_records = 7\ngather_seconds = 0.5\n[kafka.client]\n'ssl.ca.location' = '/ca'\n"
    )
    env = {"MILLRACE_SETTINGS": str(path), "MILLRACE_RUNNER__POLL_RECORDS": "9", "MILLRACE_KAFKA": "k:1", "PATH": "/bin"}
    env["MILLRACE_INFERENCE__MODELS__APPROVE__WAIT_SECONDS"] = "0.1"
    found = {one.key: (one.value, one.origin) for one in shown(load(environ=env), env)}
    assert found["topic_prefix"] == ("a-", str(path))
    assert found["runner.poll_records"] == (9, "MILLRACE_RUNNER__POLL_RECORDS")
    assert found["runner.gather_seconds"] == (0.5, str(path))
    assert found["runner.idle_seconds"] == (0.2, "default")
    assert found["kafka.address"] == ("k:1", "MILLRACE_KAFKA")
    assert found["kafka.client"] == ({"ssl.ca.location": "/ca"}, str(path))
    assert found["inference.models"][1] == "MILLRACE_INFERENCE__MODELS__APPROVE__WAIT_SECONDS"
    assert set(found) == {f"{section}.{key}".removeprefix(".") for section, key in keys()}


def test_a_secret_of_the_wrong_type_is_refused_without_showing_it() -> None:
    with pytest.raises(SettingsError) as refused:
        convert({"clickhouse": {"password": 12345}})
    assert "12345" not in str(refused.value)


@pytest.mark.parametrize(("section", "key"), list(keys()))
def test_every_setting_is_documented_with_its_default(section: str, key: str) -> None:
    heading = f"### `[{section}]`" if section else "### At the top"
    text = OPERATIONS.split(heading)[1].split("###")[0]
    default = PLAIN[section][key] if section else PLAIN[key]
    assert re.search(rf"^\| `{key}` \| `{re.escape(json.dumps(default))}` \| \S", text, re.MULTILINE), "correct docs/operations.md"


def test_no_setting_is_documented_that_there_is_not() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", OPERATIONS.split("## Settings")[1], re.MULTILINE)
    assert sorted(documented) == sorted(key for _, key in keys())


def test_every_metric_is_documented() -> None:
    families = [family for family in Metrics("w", "s").registry.collect() if family.name.startswith("millrace")]
    names = {family.name + ("_total" if family.type == "counter" else "") for family in families}
    documented = set(re.findall(r"^\| `(millrace_\w+)` \|", OPERATIONS.split("## Metrics")[1].split("## Logs")[0], re.MULTILINE))
    assert documented == names

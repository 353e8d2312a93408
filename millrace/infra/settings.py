"""One frozen tree of settings, from defaults, an optional TOML file and the environment, in that order.

``MILLRACE_SETTINGS`` names the file. ``MILLRACE_<SECTION>__<KEY>`` sets one key (``MILLRACE_RUNNER__POLL_RECORDS=500``);
``MILLRACE_KAFKA`` and ``MILLRACE_CLICKHOUSE`` are short for the two addresses. Unknown keys are refused by name.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import platformdirs
from msgspec import Meta, Struct, field

from millrace.infra.kafka import keys
from millrace.schemas.errors import SettingsError
from millrace.schemas.limits import Limits

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Bytes = Annotated[int, Meta(ge=1)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class Secret:
    """A value that is never shown: ``reveal()`` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the tree: frozen, and refusing keys that it does not know."""


class KafkaSettings(Section, frozen=True):
    """Where Kafka is. ``client`` is handed to librdkafka as it stands (SASL, TLS and all that it knows), but for what millrace sets."""

    address: str = ""
    client: dict[str, str | int | float | bool] = {}
    partitions: Count = 4
    replication: Count = 1

    def __post_init__(self) -> None:
        """Refuse what millrace sets itself."""
        keys.check(self.client)


class ClickHouseSettings(Section, frozen=True):
    """Where ClickHouse's HTTP interface is, e.g. ``http://127.0.0.1:8123``, and who asks there: millrace itself, and analysts."""

    address: str = ""
    database: str = "millrace"
    user: str = "default"
    password: Secret = field(default_factory=Secret)
    analyst_user: str = "analyst"
    analyst_password: Secret = field(default_factory=Secret)


class RunnerSettings(Section, frozen=True):
    """How a data-plane worker polls, commits, holds and stops. The meaning of each stands in docs/operations.md."""

    poll_records: Count = 5_000
    gather_seconds: Seconds = 0.005
    idle_seconds: Seconds = 0.2
    transaction_timeout_seconds: Seconds = 15.0
    commit_patience_seconds: Seconds = 30.0
    tick_seconds: Seconds = 1.0
    revoke_deadline_seconds: Seconds = 10.0
    session_timeout_seconds: Seconds = 30.0
    max_poll_interval_seconds: Seconds = 300.0
    held_aside_records: Count = 20_000
    fetch_queue_bytes: Bytes = 32 << 20
    clock_skew_seconds: Seconds = 1.0
    silence_seconds: Seconds = 3.0
    identity_check_seconds: Seconds = 10.0
    dead_letter_run: Count = 100
    dead_letter_ratio: Ratio = 0.5
    dead_letter_window_records: Count = 1_000


class ModelSettings(Section, frozen=True):
    """One model's own batch size, wait and how much of its features a prediction records (``all``, ``hash`` or a ratio)."""

    batch_records: Count | None = None
    wait_seconds: Seconds | None = None
    features_recorded: str | None = None


class InferenceSettings(Section, frozen=True):
    """Micro-batches and the ONNX runtime. ``models`` overrides batch size and wait for one model by name."""

    batch_records: Count = 1_024
    wait_seconds: Seconds = 0.0
    intra_op_threads: Count = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    features_recorded: str = "all"
    loaded_models: Count = 32
    model_bytes: Bytes = 256 << 20
    models: dict[str, ModelSettings] = {}


class ArchiverSettings(Section, frozen=True):
    """When a block is cut, and how long a writer owns the right to insert it."""

    block_rows: Annotated[int, Meta(ge=1, le=50_000)] = 20_000
    block_bytes: Bytes = 32 << 20
    block_seconds: Seconds = 1.0
    lease_seconds: Seconds = 30.0
    insert_timeout_seconds: Seconds = 20.0
    retry_seconds: Seconds = 1.0
    fetch_queue_bytes: Bytes = 8 << 20


class EndpointSettings(Section, frozen=True):
    """The embedded ClickHouse endpoint (port 0: the stack's). An analyst's limits are caps: a query may ask for less, never for more."""

    host: str = "127.0.0.1"
    port: Port = 0
    queries_at_once: Count = 8
    analyst_queries_at_once: Count = 4
    inserts_at_once: Count = 2
    queue_seconds: Seconds = 30.0
    connections: Count = 256
    body_bytes: Bytes = 512 << 20
    spool_bytes: Bytes = 1 << 30
    result_bytes: Bytes = 1 << 30
    memory_bytes: Bytes = 4 << 30
    keep_alive_seconds: Seconds = 30.0
    drain_seconds: Seconds = 20.0
    password: Secret = field(default_factory=Secret)
    analyst_password: Secret = field(default_factory=Secret)
    analyst_execution_seconds: Seconds = 30.0
    analyst_memory_bytes: Bytes = 1 << 30
    analyst_threads: Count = 2


class StackSettings(Section, frozen=True):
    """The one-machine stack: its data folder and its ports (``port_base`` 0 means the standard ones)."""

    data: str = ""
    port_base: Port = 0
    kafka_heap_bytes: Bytes = 512 << 20
    restart_limit_seconds: Seconds = 30.0
    ready_seconds: Seconds = 60.0

    @property
    def folder(self) -> Path:
        """The data folder; by default in the user's state directory."""
        return Path(self.data).expanduser() if self.data else Path(platformdirs.user_state_dir("millrace"))


class ObjectsSettings(Section, frozen=True):
    """Where model bytes lie that do not fit into a record: a folder that all workers share; by default in the data folder."""

    folder: str = ""


class TelemetrySettings(Section, frozen=True):
    """Where a worker's metrics and health are served (port 0: not served) and how much is logged."""

    host: str = "127.0.0.1"
    port: Port = 0
    log_level: str = "INFO"


class Settings(Section, frozen=True):
    """All settings of a process."""

    topic_prefix: str = ""
    ordinal: Annotated[int, Meta(ge=0)] = 0
    kafka: KafkaSettings = KafkaSettings()
    clickhouse: ClickHouseSettings = field(default_factory=ClickHouseSettings)
    limits: Limits = Limits()
    runner: RunnerSettings = RunnerSettings()
    inference: InferenceSettings = field(default_factory=InferenceSettings)
    archiver: ArchiverSettings = ArchiverSettings()
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    stack: StackSettings = StackSettings()
    objects: ObjectsSettings = ObjectsSettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @property
    def objects_folder(self) -> Path:
        """The folder of the object store."""
        return Path(self.objects.folder).expanduser() if self.objects.folder else self.stack.folder / "objects"


DEFAULT = "default"
MASK = "***"
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
CLIENT_SECRETS = re.compile(r"password|secret|token|jaas|pem$|oauthbearer\.config")
"""Of the settings that are handed to librdkafka, those that are not shown."""
SHORT = {"MILLRACE_KAFKA": "kafka.address", "MILLRACE_CLICKHOUSE": "clickhouse.address", "MILLRACE_DATA": "stack.data"}


def load(file: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings of this process; raise SettingsError naming the key and what it should be."""
    env = os.environ if environ is None else environ
    path = file or _file(env)
    tree = _from_file(path) if path else {}
    for name, value in sorted(env.items()):
        _put(tree, name, value)
    return convert(tree)


class Shown(Struct, frozen=True):
    """One key, its value as it is in effect, and where that comes from: ``default``, the file, or a variable's name."""

    key: str
    value: Any
    origin: str


def shown(settings: Settings, environ: Mapping[str, str] | None = None) -> list[Shown]:
    """All keys of settings that were loaded from here, secrets masked."""
    env = os.environ if environ is None else environ
    path = _file(env)
    origins = {key: str(path) for key in _leaves(_from_file(path))} if path else {}
    for name in sorted(env):
        if keys := _keys(name):
            origins[".".join(keys[:2])] = name
    return [Shown(key, value, origins.get(key, DEFAULT)) for key, value in _leaves(to_plain(settings)).items()]


def convert(tree: Mapping[str, Any]) -> Settings:
    """A tree of plain values as Settings; raise SettingsError for what it does not know or allow."""
    try:
        return msgspec.convert(tree, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise SettingsError(f"settings: {error}. Section names and keys are listed in docs/operations.md.") from None


def to_plain(settings: Section) -> dict[str, Any]:
    """The tree as plain values with secrets masked, for showing: passwords, those among the Kafka client's settings, and in addresses."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=lambda secret: MASK if secret else "")
    return {name: _masked(value) for name, value in plain.items()}


def process_environment() -> dict[str, str]:
    """A copy of this process's environment, for starting a child with it."""
    return dict(os.environ)


def keep_to_itself() -> None:
    """Nothing that millrace runs on reports to its maker: onnxruntime would, from the moment it is imported. What is set already stays."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"settings file {path}: {error.strerror}. Check MILLRACE_SETTINGS.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from None


def _file(env: Mapping[str, str]) -> Path | None:
    return Path(env["MILLRACE_SETTINGS"]) if env.get("MILLRACE_SETTINGS") else None


def _keys(name: str) -> list[str]:
    """Section and key that a variable sets; none where it is none of ours."""
    if name == "MILLRACE_SETTINGS" or not name.startswith("MILLRACE_"):
        return []
    return (SHORT.get(name) or name.removeprefix("MILLRACE_").lower().replace("__", ".")).split(".")


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Keys as ``section.key``, those at the top as they are."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= {f"{name}.{key}": leaf for key, leaf in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _masked(value: Any, name: str = "") -> Any:
    """A value without what only its owner may know."""
    if isinstance(value, dict):
        return {key: _masked(inner, key) for key, inner in value.items()}
    if not isinstance(value, str):
        return value
    return MASK if value and CLIENT_SECRETS.search(name) else CREDENTIALS.sub(f"{MASK}@", value)


def _put(tree: dict[str, Any], name: str, value: str) -> None:
    keys = _keys(name)
    if not keys:
        return
    *sections, key = keys
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {section} is a value, not a section")
    tree[key] = value


def _decode(wanted: type, value: object) -> object:
    if wanted is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"expected {wanted.__name__}")

"""The engine in this process: one keeper handle, a fresh handle for each statement, inserts through a memfd.

The only module of millrace that imports chdb. A handle holds one statement at a time and its own settings; opening one
takes 0.15 ms, so each request gets one and leaves nothing behind. ``send_insert`` is never used: it answers success
for blocks that the engine refused.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from millrace.infra.embedded.clickhouse.errors import BAD_ARGUMENTS, SYNTAX_ERROR, UNKNOWN_FORMAT, QueryError, from_engine
from millrace.infra.settings import EndpointSettings
from millrace.schemas.errors import PathInUse

SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
# Values of query parameters are read as TSV fields.
PARAMETER_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"})
# Output formats of the Python binding, which give objects or change its logging; a server does not know them.
BINDING_FORMATS = frozenset({"dataframe", "datastore", "arrowtable", "debug"})
IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Report:
    """What a statement read or wrote, and its result where there is one."""

    data: bytes
    rows: int
    size: int


class Handle:
    """One conversation with the engine. Every failure is a QueryError with the engine's own code."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def close(self) -> None:
        self._connection.close()

    def use(self, database: str) -> None:
        """Make ``database`` the one that bare table names mean."""
        self.run(f"USE {quote_name(database)}")

    def set(self, settings: Mapping[str, str]) -> None:
        """Apply settings to this handle. Raises QueryError 115 for one that the engine does not know."""
        if settings:
            self.run("SET " + ", ".join(f"{_checked(name)} = {quote_text(value)}" for name, value in settings.items()))

    def run(self, sql: str | bytes, output_format: str = "TabSeparated", params: Mapping[str, str] | None = None) -> Report:
        """Run one statement to its end and return the whole result."""
        _refuse_binding_format(output_format)
        try:
            result = self._connection.query(sql, output_format, params=dict(params or {}))
            return Report(result.bytes(), int(result.rows_read()), int(result.bytes_read()))
        except Exception as error:  # noqa: BLE001  the engine raises RuntimeError and ChdbError alike
            raise from_engine(str(error)) from None

    def stream(self, sql: str | bytes, output_format: str, params: Mapping[str, str]) -> Generator[Report, None, None]:
        """Run one SELECT and yield its result block by block. Closing the iterator cancels the query."""
        _refuse_binding_format(output_format)
        try:
            result = self._connection.send_query(sql, output_format, params=dict(params))
        except Exception as error:  # noqa: BLE001
            raise from_engine(str(error)) from None
        try:
            yield from _blocks(result)
        finally:
            result.close()

    def classify(self, sql: bytes, database: str) -> tuple[str, int]:
        """What the engine's own parser says: READ_ONLY, MUTATING, CONTROL, UNKNOWN or another, and the number of statements."""
        try:
            found = self._connection._conn.classify_query(sql.decode(errors="replace"), database)
        except Exception as error:  # noqa: BLE001
            raise from_engine(str(error)) from None
        return str(found["query_class"].name), int(found["statement_count"])

    def format_query(self, sql: bytes) -> bytes:
        """The statement as the engine itself writes it: no comments, plain quoting. Raises its syntax error."""
        text = sql.decode(errors="surrogateescape").translate(PARAMETER_ESCAPES)
        if not text.isascii() and not _is_utf8(sql):
            raise QueryError(BAD_ARGUMENTS, "the statement must be UTF-8")
        report = self.run("SELECT formatQuery({statement:String})", "TabSeparatedRaw", {"statement": text})
        return report.data.removesuffix(b"\n")


def _refuse_binding_format(name: str) -> None:
    if name.lower() in BINDING_FORMATS:
        raise QueryError(UNKNOWN_FORMAT, f"Unknown format {name}")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _blocks(result: Any) -> Iterator[Report]:
    while True:
        try:
            block = result.fetch()
        except Exception as error:  # noqa: BLE001
            raise from_engine(str(error)) from None
        if block is None:
            return
        yield Report(block.bytes(), int(block.rows_read()), int(block.bytes_read()))


class Engine:
    """The engine of one folder, owned by this process alone."""

    def __init__(self, folder: Path, settings: EndpointSettings, database: str) -> None:
        """Open or create the folder. Raises PathInUse when another process owns it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _own(folder)
        config = _write_config(folder, settings, database)
        self._address = f"{folder / 'store'}?config-file={config}"
        self._chdb = _import_chdb(folder)
        self._keeper = Handle(_connect(self._chdb, self._address, folder))
        self.version = self._keeper.run("SELECT version()").data.decode().strip()
        names = self._keeper.run("SELECT lower(name) FROM system.table_functions").data.decode()
        self.table_functions = frozenset(names.split())
        self.timezone = self._keeper.run("SELECT timezone()").data.decode().strip()

    @contextmanager
    def handle(self) -> Iterator[Handle]:
        """A fresh handle, closed afterwards whatever happened."""
        handle = self.open()
        try:
            yield handle
        finally:
            handle.close()

    def open(self) -> Handle:
        """A fresh handle; the caller closes it."""
        try:
            return Handle(self._chdb.connect(self._address))
        except RuntimeError as error:
            raise from_engine(str(error)) from None

    def close(self) -> None:
        """Flush and close the engine, then let go of the folder."""
        self._keeper.close()
        os.close(self._lock)


def quote_text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _checked(name: str) -> str:
    if not SETTING_NAME.match(name):
        raise QueryError(SYNTAX_ERROR, f"{name!r} is not the name of a setting")
    return name


def _own(folder: Path) -> int:
    """Lock the folder for this process's life, whichever way it ends. Raises PathInUse."""
    lock = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock, 32).decode().strip() or "unknown"
        os.close(lock)
        raise PathInUse(
            f"path in use: {folder} is owned by process {owner}. Stop that process (`millrace down`) or choose another folder with --data."
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _connect(chdb: Any, address: str, folder: Path) -> Any:
    try:
        return chdb.connect(address)
    except RuntimeError as error:
        if "EmbeddedServer" not in str(error):
            raise from_engine(str(error)) from None
        # The engine gives no reason here; its own lock on the folder is the usual one.
        raise PathInUse(
            f"path in use: the engine could not open {folder / 'store'}; another process (a chdb or clickhouse-local) "
            "holds it, or this user may not write it. End that process or choose another folder with --data. "
            f"The engine said: {error}"
        ) from None


def _import_chdb(folder: Path) -> Any:
    """Import the engine from inside its own folder: on import it would take a ``config.xml`` of the current one for its own."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        import chdb
    finally:
        os.chdir(before)
    return chdb


def _write_config(folder: Path, settings: EndpointSettings, database: str) -> Path:
    if not IDENTIFIER.match(database):
        raise QueryError(BAD_ARGUMENTS, f"database {database!r} must be letters, digits and underscores")
    config = folder / "config"
    (folder / "backups").mkdir(exist_ok=True)
    config.mkdir(exist_ok=True)
    roles = config / "roles.xml"
    roles.write_text(_template("roles.xml").replace("{database}", database))
    text = _template("engine.xml").replace("{roles}", str(roles)).replace("{backups}", str(folder / "backups"))
    (config / "engine.xml").write_text(text.replace("{memory_bytes}", str(settings.memory_bytes)))
    return config / "engine.xml"


def _template(name: str) -> str:
    return (resources.files(__package__) / name).read_text()

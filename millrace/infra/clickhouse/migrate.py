"""Bring a database to what this version needs: numbered migrations, forward only, then the views.

A migration is ``migrations/NNNN_name.sql``: statements that each end with ``;`` at the end of a line, and that do no harm when they run
again (``IF NOT EXISTS``), because two workers may run them at the same time. ``{database}`` and ``{engine}`` are filled in. What was
applied stands in the table ``migrations``. Views hold no data: they are made anew whenever their text has changed.
"""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files

from msgspec import Struct

from millrace.infra.clickhouse.client import Client
from millrace.infra.clickhouse.views import views
from millrace.schemas.errors import Stop
from millrace.schemas.tables import ENGINE, quoted

NAME = re.compile(r"^(\d{4})_(\w+)\.sql$")
VIEWS = 0
"""The number under which the views' digest is recorded."""
RECORDS = """
CREATE TABLE IF NOT EXISTS {database}.migrations
(
    `number` UInt32 COMMENT 'Migrations are counted; 0 stands for the views.',
    `name` String COMMENT 'What it was called.',
    `digest` String COMMENT 'sha256 of its text.',
    `applied` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied.'
)
ENGINE = {engine}
ORDER BY number
COMMENT 'What was done to this database.'
"""


class Migration(Struct, frozen=True):
    """One numbered step."""

    number: int
    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self, database: str) -> list[str]:
        """Its statements, filled in."""
        pieces = re.split(r";[ \t]*(?:\n|$)", rendered(self.text, database))
        return [piece.strip() for piece in pieces if _code(piece)]


def migrations() -> list[Migration]:
    """All that this version knows, in order."""
    folder = files(__package__).joinpath("migrations")
    found = [Migration(int(match[1]), match[2], file.read_text()) for file in folder.iterdir() if (match := NAME.match(file.name))]
    return sorted(found, key=lambda migration: migration.number)


def rendered(text: str, database: str) -> str:
    """SQL with the database and the engine filled in."""
    return text.replace("{database}", database).replace("{engine}", ENGINE)


def migrate(client: Client) -> list[str]:
    """Apply what is missing and say what was done. Raises Stop where the database is of a newer version than this program."""
    client.command(f"CREATE DATABASE IF NOT EXISTS {client.database}")
    client.command(rendered(RECORDS, client.database))
    applied = _applied(client)
    known = migrations()
    if newer := sorted(set(applied) - {VIEWS} - {migration.number for migration in known}):
        raise Stop(f"database {client.database} has migration {newer[-1]}, which this version does not know: upgrade millrace")
    done = [_apply(client, migration) for migration in known if migration.number not in applied]
    if done or applied.get(VIEWS) != _digest_of_views(client):
        done += _make_views(client)
    return done


def _applied(client: Client) -> dict[int, str]:
    return dict(client.rows(f"SELECT number, argMax(digest, applied) FROM {client.database}.migrations GROUP BY number"))


def _apply(client: Client, migration: Migration) -> str:
    for statement in migration.statements(client.database):
        client.command(statement)
    _record(client, migration.number, migration.name, migration.digest)
    return f"{migration.number:04} {migration.name}"


def _make_views(client: Client) -> list[str]:
    made = views(client.database)
    for view in made:
        client.command(view.create(client.database))
    _record(client, VIEWS, "views", _digest_of_views(client))
    return [view.name for view in made]


def _record(client: Client, number: int, name: str, digest: str) -> None:
    client.command(
        f"INSERT INTO {client.database}.migrations (number, name, digest) SELECT {number}, {quoted(name)}, {quoted(digest)}", async_insert=0
    )


def _digest_of_views(client: Client) -> str:
    return hashlib.sha256("\n".join(view.create(client.database) for view in views(client.database)).encode()).hexdigest()


def _code(piece: str) -> str:
    return "\n".join(line for line in piece.splitlines() if not line.lstrip().startswith("--")).strip()

"""What every view is made of: its columns and text, the order of records, and the first of those that were published again."""

from __future__ import annotations

from msgspec import Struct

from millrace.schemas.tables import TABLES, quoted

PLACE = "bitOr(bitShiftLeft(toUInt128(toUnixTimestamp64Milli({t}_appended) * 2097152 + {t}_partition), 64), toUInt128({t}_offset))"
"""The order of append time, partition (below 2^21) and offset, as one number of 128 bits."""
COPIES = "greatest(d.copies, 1) - 1"
SETTINGS = "SETTINGS join_use_nulls = 0"
"""What these joins rest on, whatever the asking client has set."""

Named = tuple[str, str, str]
"""A column's name, type and comment."""


class View(Struct, frozen=True):
    """A view: its columns, what they are computed by, and what it is for."""

    name: str
    columns: tuple[Named, ...]
    select: str
    comment: str

    def create(self, database: str) -> str:
        """The statement that makes it, or makes it anew. It reads with its maker's rights: analysts have none on tables."""
        lines = ",\n".join(f"    `{name}` {kind} COMMENT {quoted(text)}" for name, kind, text in self.columns)
        select = self.select.replace("{database}", database)
        return (
            f"CREATE OR REPLACE VIEW {database}.{self.name}\n(\n{lines}\n)\n"
            f"DEFINER = CURRENT_USER SQL SECURITY DEFINER AS\n{select}\nCOMMENT {quoted(self.comment)}"
        )


def place(table: str = "") -> str:
    """Where a row's record stood, as a number that orders as (append time, partition, offset) does."""
    return PLACE.replace("{t}", f"{table}." if table else "")


def first(table: str, key: tuple[str, ...], columns: str, where: str = "_error = ''") -> str:
    """The first row of each key, as ``t``, and how many copies there are, as ``d.copies`` (0: no other). A null key is never a copy."""
    keys, on = ", ".join(key), " AND ".join(f"t.{name} = d.{name}" for name in key)
    return (
        f"SELECT {columns}\nFROM (SELECT * FROM {{database}}.{table} WHERE {where}) AS t\nLEFT JOIN (\n"
        f"    SELECT {keys}, count() AS copies, min({place()}) AS first\n    FROM {{database}}.{table}\n    WHERE {where}\n"
        f"    GROUP BY {keys} HAVING copies > 1\n) AS d ON {on}\n"
        f"WHERE d.copies = 0 OR {place('t')} = d.first"
    )


def taken(topic: str, column: str, new: str = "", nullable: bool = False) -> Named:
    """A column as it stands in a table, perhaps under another name, and null where its event is missing."""
    found = next(c for c in TABLES[topic].columns if c.name == column)
    wrapped = nullable and not found.nullable
    return (new or column, f"Nullable({found.type})" if wrapped else found.type, found.comment)

"""The one list of tables: each topic's ClickHouse table, derived from the event that the topic carries.

Columns have the names of the event's fields, their comments are the fields' descriptions. Bookkeeping columns begin with
an underscore: where the record stood, and its original bytes where it could not be decoded.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec.inspect as inspect
from msgspec import Struct

from millrace.schemas.event import Event
from millrace.schemas.topics import TOPICS, Topic

# A replicated or sharded server needs another engine: this is the only place that names it.
ENGINE = "MergeTree"
DEDUPLICATION_WINDOW_BLOCKS = 10_000
IDENTITIES = frozenset({"id", "request_id", "unit_id"})
LEASE_CONSTRAINT = "lease"


class Cell(Enum):
    """What one field holds."""

    TEXT = "text"
    WORD = "word"
    """Text of few different values."""
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    TIME = "time"
    BYTES = "bytes"
    JSON = "json"
    """JSON text: read it with ClickHouse's JSONExtract functions."""
    VECTOR = "vector"
    TEXTS = "texts"
    INTEGERS = "integers"
    NUMBERS = "numbers"
    """Names to numbers. Of a field that also allows lists, only the plain numbers."""
    LISTS = "lists"
    """Names to lists of numbers: the other half of such a field."""
    WORDS = "words"
    COUNTS = "counts"


TYPES: dict[Cell, str] = {
    Cell.TEXT: "String",
    Cell.WORD: "LowCardinality(String)",
    Cell.INTEGER: "Int64",
    Cell.FLOAT: "Float64",
    Cell.BOOLEAN: "Bool",
    Cell.TIME: "DateTime64(6, 'UTC')",
    Cell.BYTES: "String",
    Cell.JSON: "String",
    Cell.VECTOR: "Array(Float32)",
    Cell.TEXTS: "Array(String)",
    Cell.INTEGERS: "Array(Int64)",
    Cell.NUMBERS: "Map(LowCardinality(String), Float64)",
    Cell.LISTS: "Map(LowCardinality(String), Array(Float64))",
    Cell.WORDS: "Map(LowCardinality(String), String)",
    Cell.COUNTS: "Map(LowCardinality(String), Int64)",
}


class Column(Struct, frozen=True, kw_only=True):
    """One column of a table: its name, what it holds, and the event's field that it is taken from."""

    name: str
    cell: Cell
    field: str
    comment: str
    nullable: bool = False
    falls_back: bool = False
    """Whether the append time stands in where the event has no time of its own."""

    @property
    def type(self) -> str:
        """Its ClickHouse type."""
        plain = TYPES[self.cell]
        if not self.nullable:
            return plain
        return "LowCardinality(Nullable(String))" if self.cell is Cell.WORD else f"Nullable({plain})"


class Mark(Struct, frozen=True):
    """A bookkeeping column, the same in every table."""

    name: str
    type: str
    comment: str


MARKS: tuple[Mark, ...] = (
    Mark("_topic_id", "LowCardinality(String)", "Kafka's id of the topic that the record stood on."),
    Mark("_partition", "Int32", "Its partition."),
    Mark("_offset", "Int64", "Its offset."),
    Mark("_appended", "DateTime64(3, 'UTC')", "When the broker appended it."),
    Mark("_key", "Nullable(String)", "Its key, as bytes."),
    Mark("_headers", "Map(LowCardinality(String), String)", "Its headers."),
    Mark("_raw", "Nullable(String)", "Its value, as bytes, where it could not be decoded."),
    Mark("_error", "String", "Why it could not be decoded; empty where it could."),
    Mark("_lease", "DateTime('UTC')", "Until when its writer was allowed to insert it."),
)


class Table(Struct, frozen=True):
    """The table that keeps one topic."""

    topic: Topic
    columns: tuple[Column, ...]

    @property
    def name(self) -> str:
        return self.topic.table

    @property
    def order(self) -> tuple[str, ...]:
        """The sorting key: the record's place.

        Append order is time order within a partition, so time ranges are cut by the index on ``time``; and which offsets
        are present is read from the primary key.
        """
        return ("_topic_id", "_partition", "_offset")

    @property
    def indexed(self) -> tuple[str, ...]:
        """Columns that one row is looked up by."""
        return tuple(column.name for column in self.columns if column.name in IDENTITIES)

    def create(self, database: str) -> str:
        """The statement that makes it."""
        named = [(c.name, c.type, c.comment) for c in self.columns] + [(m.name, m.type, m.comment) for m in MARKS]
        lines = [f"    `{name}` {kind} COMMENT {quoted(comment)}" for name, kind, comment in named]
        lines += [f"    INDEX {name}_lookup `{name}` TYPE bloom_filter(0.01) GRANULARITY 1" for name in self.indexed]
        lines += ["    INDEX time_range `time` TYPE minmax GRANULARITY 1"]
        lines += [f"    CONSTRAINT {LEASE_CONSTRAINT} CHECK now() <= _lease"]
        return (
            f"CREATE TABLE IF NOT EXISTS {database}.{self.name}\n(\n"
            + ",\n".join(lines)
            + f"\n)\nENGINE = {ENGINE}\nPARTITION BY toYYYYMM(_appended)\nORDER BY ({', '.join(self.order)})\n"
            + f"SETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW_BLOCKS}\nCOMMENT {quoted(self.topic.summary)}"
        )


def quoted(text: str) -> str:
    """A text as a ClickHouse string literal.

    >>> quoted("the producer's")
    "'the producer\\\\'s'"
    """
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def columns_of(event: type[Event], public: bool) -> tuple[Column, ...]:
    """The columns of an event, in the order of its fields."""
    info = inspect.type_info(event)
    if not isinstance(info, inspect.StructType):
        raise TypeError(f"{event.__name__} is not a struct")
    return tuple(column for field in info.fields for column in _columns(field, public))


def _columns(field: inspect.Field, public: bool) -> list[Column]:
    kind, described = _unwrap(field.type)
    comment = str(described.get("description", ""))
    options = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    inner = [_unwrap(option) for option in options if not isinstance(option, inspect.NoneType)]
    if len(inner) != 1:
        raise TypeError(f"field {field.name} is a union of {len(inner)} types: state how a table is to hold it")
    nullable = len(inner) < len(options)
    cells = _cells(inner[0][0], {**inner[0][1], **described})
    falls_back = public and nullable and field.name == "time"
    return [
        Column(
            name=field.name if cell is not Cell.LISTS else f"{field.name.removesuffix('s')}_lists",
            cell=cell,
            field=field.name,
            comment=comment if cell is not Cell.LISTS else f"{comment} Those that are lists.",
            nullable=nullable and not falls_back,
            falls_back=falls_back,
        )
        for cell in cells
    ]


def _unwrap(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """A type without its annotations, and what they said."""
    said: dict[str, Any] = {}
    while isinstance(kind, inspect.Metadata):
        said = {**(kind.extra_json_schema or {}), **(kind.extra or {}), **said}
        kind = kind.type
    return kind, said


SCALARS: dict[type[inspect.Type], Cell] = {
    inspect.IntType: Cell.INTEGER,
    inspect.FloatType: Cell.FLOAT,
    inspect.BoolType: Cell.BOOLEAN,
    inspect.DateTimeType: Cell.TIME,
    inspect.EnumType: Cell.WORD,
    inspect.BytesType: Cell.BYTES,
}
MAPS: dict[type[inspect.Type], Cell] = {
    inspect.StrType: Cell.WORDS,
    inspect.IntType: Cell.COUNTS,
    inspect.FloatType: Cell.NUMBERS,
}
ARRAYS: dict[type[inspect.Type], Cell] = {inspect.StrType: Cell.TEXTS, inspect.IntType: Cell.INTEGERS}


def _cells(kind: inspect.Type, said: dict[str, Any]) -> tuple[Cell, ...]:
    if isinstance(kind, inspect.RawType):
        return (Cell.VECTOR if said.get("vector") else Cell.JSON,)
    if isinstance(kind, inspect.StrType):
        return (Cell.WORD if said.get("low_cardinality") else Cell.TEXT,)
    if isinstance(kind, inspect.DictType):
        return _map_cells(kind)
    if isinstance(kind, inspect.VarTupleType | inspect.ListType):
        return (ARRAYS.get(type(_unwrap(kind.item_type)[0]), Cell.JSON),)
    return (SCALARS.get(type(kind), Cell.JSON),)


def _map_cells(kind: inspect.DictType) -> tuple[Cell, ...]:
    value = _unwrap(kind.value_type)[0]
    if not isinstance(_unwrap(kind.key_type)[0], inspect.StrType):
        return (Cell.JSON,)
    if isinstance(value, inspect.UnionType):
        return (Cell.NUMBERS, Cell.LISTS)
    return (MAPS.get(type(value), Cell.JSON),)


def table_of(topic: Topic) -> Table:
    """The table of a topic."""
    return Table(topic, columns_of(topic.event, topic.public))


TABLES: dict[str, Table] = {topic.name: table_of(topic) for topic in TOPICS}

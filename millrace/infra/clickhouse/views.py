"""What analysts read: a view for every table, and views that bring tables together. Column comments say what each column means.

Views leave out what could not be decoded. A record that was published twice counts once, by its first offset; ``duplicates`` says how
often it came again. The predicate on an id is pushed into both sides of these joins, so that one decision is found by the indexes.

What ``v_decisions`` asks of its requests (an hour, a unit) is not known of the other tables, so the requests are the side that a join
builds its hash table from, and the engine filters what it reads of the others by their ids, below the aggregation. Hence ``RIGHT ANY``:
of a ``LEFT`` join it filters neither side, and an ``ALL`` join is turned around where it estimates so. Places are compared as one number,
because ``min`` and ``argMin`` of a tuple cost three times as much and a gigabyte more for a million records.
"""

from __future__ import annotations

from msgspec import Struct

from millrace.schemas.tables import MARKS, TABLES, Table, quoted
from millrace.schemas.topics import ASSIGNMENTS, BY_NAME

PLACE = "bitOr(bitShiftLeft(toUInt128(toUnixTimestamp64Milli({t}_appended) * 2097152 + {t}_partition), 64), toUInt128({t}_offset))"
"""The order of append time, partition (below 2^21) and offset, as one number of 128 bits."""
SHOWN_MARKS = ("_topic_id", "_partition", "_offset", "_appended", "_key", "_headers")
LEFT_OUT = {("models", "data")}
"""Bytes that would make every `SELECT *` slow."""
VERSIONED = {"allowances": ("version",), "experiments": ("name", "version"), "models": ("name", "version"), "routes": ("name", "version")}
"""What tells two records of these tables apart; the first of a version is the one that counts."""
DUPLICATES = ("duplicates", "UInt64", "How often the same record was published again; only its first offset is shown.")

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


def views(database: str) -> tuple[View, ...]:
    """All views of a database, in the order in which they are made."""
    plain = tuple(_assignments(table) if table.topic is ASSIGNMENTS else _plain(table) for table in TABLES.values())
    return (*plain, _decisions(), _latency(), _undecoded())


def identity(table: Table) -> tuple[str, ...]:
    """The columns that tell one event of a table from another."""
    return VERSIONED.get(table.name, ("id",))


def _columns(table: Table) -> tuple[Named, ...]:
    own = [(c.name, c.type, c.comment) for c in table.columns if (table.name, c.name) not in LEFT_OUT]
    marks = [(mark.name, mark.type, mark.comment) for mark in MARKS if mark.name in SHOWN_MARKS]
    return (*own, DUPLICATES, *marks)


def _place(table: str = "") -> str:
    """Where a row's record stood, as a number that orders as (append time, partition, offset) does."""
    return PLACE.replace("{t}", f"{table}." if table else "")


def _first(table: str, key: tuple[str, ...], columns: str, where: str = "_error = ''") -> str:
    """The first row of each key, as ``t``, and how many copies there are, as ``d.copies`` (0: no other). A null key is never a copy."""
    keys, on = ", ".join(key), " AND ".join(f"t.{name} = d.{name}" for name in key)
    return (
        f"SELECT {columns}\nFROM (SELECT * FROM {{database}}.{table} WHERE {where}) AS t\nLEFT JOIN (\n"
        f"    SELECT {keys}, count() AS copies, min({_place()}) AS first\n    FROM {{database}}.{table}\n    WHERE {where}\n"
        f"    GROUP BY {keys} HAVING copies > 1\n) AS d ON {on}\n"
        f"WHERE d.copies = 0 OR {_place('t')} = d.first"
    )


def _plain(table: Table) -> View:
    columns = _columns(table)
    shown = ", ".join(f"{COPIES if name == 'duplicates' else f't.`{name}`'} AS `{name}`" for name, *_ in columns)
    return View(f"v_{table.name}", columns, f"{_first(table.name, identity(table), shown)}\n{SETTINGS}", table.topic.summary)


def _assignments(table: Table) -> View:
    """Assignments, with each bucket computed again from the plan's salt."""
    columns = _columns(table)
    names = ", ".join(f"a.`{name}` AS `{name}`" for name, *_ in columns)
    derived = (
        ("derived_bucket", "Nullable(Float64)", "The bucket computed again from the plan's salt and the unit; null without a known plan."),
        ("agrees", "Nullable(Bool)", "Whether the bucket computed again is the one that was published."),
    )
    plain = _plain(table)
    once = plain.select.removesuffix(SETTINGS).rstrip()
    salted = _first("experiments", VERSIONED["experiments"], "t.name AS name, t.version AS version, toNullable(t.salt) AS salt")
    select = (
        f"SELECT {names},\n"
        "    bitShiftRight(xxHash64(concat(e.salt, ':variant:', a.unit_id)), 11) / 9007199254740992 AS derived_bucket,\n"
        "    derived_bucket = a.bucket AS agrees\n"
        f"FROM (\n{once}\n) AS a\nLEFT ANY JOIN (\n{salted}\n) AS e ON a.experiment = e.name AND a.plan_version = e.version\n{SETTINGS}"
    )
    return View(plain.name, (*columns, *derived), select, plain.comment)


def _taken(topic: str, column: str, new: str = "", nullable: bool = False) -> Named:
    """A column as it stands in a table, perhaps under another name, and null where its event is missing."""
    found = next(c for c in TABLES[topic].columns if c.name == column)
    wrapped = nullable and not found.nullable
    return (new or column, f"Nullable({found.type})" if wrapped else found.type, found.comment)


def _decisions() -> View:
    columns = (
        _taken("requests", "id", "request_id"),
        _taken("requests", "unit_id"),
        _taken("requests", "time"),
        ("route", "LowCardinality(Nullable(String))", "The model's route that was asked for."),
        _taken("requests", "features"),
        _taken("requests", "vector"),
        _taken("requests", "context"),
        _taken("requests", "deadline"),
        ("requested", "DateTime64(3, 'UTC')", "When the broker appended the request."),
        ("duplicates", "UInt64", "How often the request was published again."),
        ("variants", "Map(LowCardinality(String), String)", "Each experiment that the request is in, and its variant there."),
        ("propensities", "Map(LowCardinality(String), Float64)", "Each experiment, and the chance that its variant had."),
        ("exposed", "Map(LowCardinality(String), Bool)", "Each experiment, and whether the unit really met its variant there."),
        ("status", "LowCardinality(String)", "ok, expired or error; unanswered where there is no prediction (yet)."),
        _taken("predictions", "model"),
        _taken("predictions", "version"),
        _taken("predictions", "digest"),
        _taken("predictions", "outputs"),
        _taken("predictions", "output_lists"),
        _taken("predictions", "latency_seconds", nullable=True),
        ("answer_seconds", "Nullable(Float64)", "From the request's append to the prediction's append, both by the broker."),
        ("answered", "Nullable(DateTime64(3, 'UTC'))", "When the broker appended the prediction."),
        _taken("predictions", "error"),
        ("outcomes", "Map(LowCardinality(String), Float64)", "Metric to its newest value, of outcomes that name this request."),
    )
    return View("v_decisions", columns, DECISIONS, "One decision a row: request, assignments, prediction (no shadow) and outcomes.")


REQUESTS_ONCE = _first("requests", ("id",), f"t.*, {COPIES} AS duplicates")
PREDICTED_ONCE = _first("predictions", ("request_id",), "t.*", "_error = '' AND NOT shadow")
OF_REQUEST = ("id", "unit_id", "time", "model", "features", "vector", "context", "deadline", "_appended", "duplicates")
OF_PREDICTION = ("status", "model", "version", "digest", "outputs", "output_lists", "latency_seconds", "_appended", "error")


def _passed_on(table: str, names: tuple[str, ...]) -> str:
    """The columns of a joined table, as ``table_name``, so that those of two tables do not meet."""
    return ", ".join(f"{table}.{name} AS {table}_{name}" for name in names)


DECISIONS = f"""
SELECT
    r_id AS request_id, r_unit_id AS unit_id, r_time AS time, r_model AS route, r_features AS features, r_vector AS vector,
    r_context AS context, r_deadline AS deadline, r__appended AS requested, r_duplicates AS duplicates,
    variants, propensities, exposed,
    if(p_status = '', 'unanswered', p_status) AS status, p_model AS model, p_version AS version, p_digest AS digest,
    p_outputs AS outputs, p_output_lists AS output_lists, if(p_status = '', NULL, p_latency_seconds) AS latency_seconds,
    if(p_status = '', NULL, p__appended - r__appended) AS answer_seconds,
    if(p_status = '', NULL, p__appended) AS answered, p_error AS error, o.outcomes AS outcomes
FROM (
    SELECT outcome_of AS request_id, mapFromArrays(groupArray(metric), groupArray(value)) AS outcomes
    FROM (
        SELECT assumeNotNull(request_id) AS outcome_of, metric, argMax(value, {_place()}) AS value
        FROM {{database}}.outcomes WHERE _error = '' AND request_id IS NOT NULL GROUP BY outcome_of, metric
    )
    GROUP BY outcome_of
) AS o
RIGHT ANY JOIN (
SELECT a.variants AS variants, a.propensities AS propensities, a.exposed AS exposed, answered.*
FROM (
    SELECT request_id, mapFromArrays(groupArray(experiment), groupArray(variant)) AS variants,
        mapFromArrays(groupArray(experiment), groupArray(propensity)) AS propensities,
        mapFromArrays(groupArray(experiment), groupArray(exposed)) AS exposed
    FROM (
        SELECT request_id, experiment, argMin(variant, {_place()}) AS variant, argMin(propensity, {_place()}) AS propensity,
            argMin(exposed, {_place()}) AS exposed
        FROM {{database}}.assignments WHERE _error = '' GROUP BY request_id, experiment
    )
    GROUP BY request_id
) AS a
RIGHT ANY JOIN (
SELECT {_passed_on("r", OF_REQUEST)},
    {_passed_on("p", OF_PREDICTION)}
FROM (
{PREDICTED_ONCE}
) AS p
RIGHT ANY JOIN (
{REQUESTS_ONCE}
) AS r ON p.request_id = r.id
) AS answered ON a.request_id = answered.r_id
) AS assigned ON o.request_id = assigned.r_id
{SETTINGS}
""".strip()


LEVELS = (("p50_seconds", 0.5), ("p90_seconds", 0.9), ("p99_seconds", 0.99), ("p999_seconds", 0.999))
REQUEST_APPENDED_MS = "round(toUnixTimestamp64Micro(time) / 1000) - round(latency_seconds * 1000)"
"""A prediction's ``latency_seconds`` is its ``time`` less its request's append, so it tells that append without a join, and of a request
that was published twice each answer is measured from the record that it answers. It is never below 0: of a worker whose clock is behind
the broker's by more than its requests waited, the append comes out that much too early."""


def _latency() -> View:
    taken_up = tuple((f"taken_up_{name}", level) for name, level in LEVELS)
    columns = (
        ("minute", "DateTime('UTC')", "When the broker appended the predictions, by the minute."),
        _taken("predictions", "model"),
        _taken("predictions", "version"),
        _taken("predictions", "status"),
        _taken("predictions", "shadow"),
        ("predictions", "UInt64", "How many there were, repeated ones included."),
        *(
            (name, "Float64", f"{level:.1%} were appended at most this long after their request, both by the broker.")
            for name, level in LEVELS
        ),
        ("max_seconds", "Float64", "The longest time from a request's append to its prediction's append."),
        *(
            (name, "Float64", f"{level:.1%} of latency_seconds were at most this: until a micro-batch took them up.")
            for name, level in taken_up
        ),
        ("taken_up_max_seconds", "Float64", "The longest latency_seconds."),
        ("mean_batch_records", "Float64", "How many requests a model run answered, on average over predictions."),
    )
    answered = ", ".join(f"quantile({level})(answer_seconds) AS {name}" for name, level in LEVELS)
    waited = ", ".join(f"quantile({level})(latency_seconds) AS {name}" for name, level in taken_up)
    select = (
        "SELECT toStartOfMinute(toDateTime(_appended, 'UTC')) AS minute, model, version, status, shadow, count() AS predictions,\n"
        f"    {answered}, max(answer_seconds) AS max_seconds,\n"
        f"    {waited}, max(latency_seconds) AS taken_up_max_seconds,\n    avg(batch_records) AS mean_batch_records\n"
        f"FROM (SELECT *, (toUnixTimestamp64Milli(_appended) - ({REQUEST_APPENDED_MS})) / 1000 AS answer_seconds\n"
        "    FROM {database}.predictions WHERE _error = '')\n"
        "GROUP BY minute, model, version, status, shadow"
    )
    return View("v_latency", columns, select, "From a request's append to its prediction's, by minute, model, version and status.")


def _undecoded() -> View:
    marks = tuple((mark.name, mark.type, mark.comment) for mark in MARKS if mark.name != "_lease")
    columns = (("topic", "LowCardinality(String)", "The topic that the record stands on."), *marks)
    names = ", ".join(name for name, *_ in marks)
    select = "\nUNION ALL\n".join(
        f"SELECT {quoted(topic)} AS topic, {names} FROM {{database}}.{table.name} WHERE _error != ''" for topic, table in TABLES.items()
    )
    return View("v_undecoded", columns, select, f"Records of all {len(BY_NAME)} topics that could not be decoded, and why.")

"""What analysts read: a view for every table, and views that bring tables together. Column comments say what each column means.

Views leave out what could not be decoded. A record that was published twice counts once, by its first offset; ``duplicates`` says how
often it came again. The predicate on an id is pushed into both sides of these joins, so that one decision is found by the indexes.

What ``v_decisions`` asks of its requests (an hour, a unit) is not known of the other tables, so the requests are the side that a join
builds its hash table from, and the engine filters what it reads of the others by their ids, below the aggregation. Hence ``RIGHT ANY``:
of a ``LEFT`` join it filters neither side, and an ``ALL`` join is turned around where it estimates so. Places are compared as one number,
because ``min`` and ``argMin`` of a tuple cost three times as much and a gigabyte more for a million records.
"""

from __future__ import annotations

from millrace.infra.clickhouse.assignment_view import DERIVED, assignments_select
from millrace.infra.clickhouse.record_views import record_views
from millrace.infra.clickhouse.result_view import experiment_results
from millrace.infra.clickhouse.view import COPIES, SETTINGS, Named, View, first, place, taken
from millrace.schemas.tables import MARKS, TABLES, Table, quoted
from millrace.schemas.topics import ASSIGNMENTS, BY_NAME

SHOWN_MARKS = ("_topic_id", "_partition", "_offset", "_appended", "_key", "_headers")
LEFT_OUT = {("models", "data")}
"""Bytes that would make every `SELECT *` slow."""
VERSIONED = {
    "allowances": ("version",),
    "experiments": ("name", "version"),
    "models": ("name", "version"),
    "policies": ("experiment", "version"),
    "routes": ("name", "version"),
}
"""What tells two records of these tables apart; the first of a version is the one that counts."""
DUPLICATES = ("duplicates", "UInt64", "How often the same record was published again; only its first offset is shown.")


def views(database: str) -> tuple[View, ...]:
    """All views of a database, in the order in which they are made."""
    plain = tuple(_assignments(table) if table.topic is ASSIGNMENTS else _plain(table) for table in TABLES.values())
    return (*plain, *record_views(), _decisions(), _latency(), experiment_results(), _undecoded())


def identity(table: Table) -> tuple[str, ...]:
    """The columns that tell one event of a table from another."""
    return VERSIONED.get(table.name, ("id",))


def _columns(table: Table) -> tuple[Named, ...]:
    own = [(c.name, c.type, c.comment) for c in table.columns if (table.name, c.name) not in LEFT_OUT]
    marks = [(mark.name, mark.type, mark.comment) for mark in MARKS if mark.name in SHOWN_MARKS]
    return (*own, DUPLICATES, *marks)


def _plain(table: Table) -> View:
    columns = _columns(table)
    shown = ", ".join(f"{COPIES if name == 'duplicates' else f't.`{name}`'} AS `{name}`" for name, *_ in columns)
    return View(f"v_{table.name}", columns, f"{first(table.name, identity(table), shown)}\n{SETTINGS}", table.topic.summary)


def _assignments(table: Table) -> View:
    """Assignments, with bucket and variant derived again from the plan."""
    plain = _plain(table)
    columns = _columns(table)
    select = assignments_select(columns, plain.select.removesuffix(SETTINGS).rstrip(), VERSIONED["experiments"])
    return View(plain.name, (*columns, *DERIVED), select, plain.comment)


def _decisions() -> View:
    columns = (
        taken("requests", "id", "request_id"),
        taken("requests", "unit_id"),
        taken("requests", "time"),
        ("route", "LowCardinality(Nullable(String))", "The model's route that was asked for."),
        taken("requests", "features"),
        taken("requests", "vector"),
        taken("requests", "context"),
        taken("requests", "deadline"),
        ("requested", "DateTime64(3, 'UTC')", "When the broker appended the request."),
        ("duplicates", "UInt64", "How often the request was published again."),
        ("variants", "Map(LowCardinality(String), String)", "Each experiment that the request is in, and its variant there."),
        ("propensities", "Map(LowCardinality(String), Float64)", "Each experiment, and the chance that its variant had."),
        ("exposed", "Map(LowCardinality(String), Bool)", "Each experiment, and whether the unit really met its variant there."),
        ("status", "LowCardinality(String)", "ok, expired or error; unanswered where there is no prediction (yet)."),
        taken("predictions", "model"),
        taken("predictions", "version"),
        taken("predictions", "digest"),
        taken("predictions", "outputs"),
        taken("predictions", "output_lists"),
        taken("predictions", "latency_seconds", nullable=True),
        ("answer_seconds", "Nullable(Float64)", "From the request's append to the prediction's append, both by the broker."),
        ("answered", "Nullable(DateTime64(3, 'UTC'))", "When the broker appended the prediction."),
        taken("predictions", "error"),
        ("outcomes", "Map(LowCardinality(String), Float64)", "Metric to its newest value, of outcomes that name this request."),
    )
    return View("v_decisions", columns, DECISIONS, "One decision a row: request, assignments, prediction (no shadow) and outcomes.")


REQUESTS_ONCE = first("requests", ("id",), f"t.*, {COPIES} AS duplicates")
PREDICTED_ONCE = first("predictions", ("request_id",), "t.*", "_error = '' AND NOT shadow")
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
        SELECT assumeNotNull(request_id) AS outcome_of, metric, argMax(value, {place()}) AS value
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
        SELECT request_id, experiment, argMin(variant, {place()}) AS variant, argMin(propensity, {place()}) AS propensity,
            argMin(exposed, {place()}) AS exposed
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
        taken("predictions", "model"),
        taken("predictions", "version"),
        taken("predictions", "status"),
        taken("predictions", "shadow"),
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

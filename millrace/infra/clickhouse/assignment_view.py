"""Assignments, each derived again from the version of the plan that it names: its bucket, its variant, and whether its unit may take part.

The same function as ``streams.assign.derive``, to the last bit: xxHash64 is the same hash, shares are summed from left to right, and a
bucket falls to the first variant whose upper bound is above it.
"""

from __future__ import annotations

from millrace.infra.clickhouse.view import SETTINGS, Named, first

PLACES = "9007199254740992"
ARMS = "JSONExtract(t.variants, 'Array(Tuple(name String, weight Nullable(Float64)))')"
SPANS = "JSONExtract(t.spans, 'Array(Tuple(high Float64, variant String))')"
RAMP = "JSONExtract(t.ramp, 'Array(Tuple(at String, share Float64))')"
OF_PLAN = f"""
t.name AS name, t.version AS version, toNullable(t.salt) AS salt, t.unit AS unit, t.holdout AS holdout, t.sample AS sample,
    if(isNull(t.layer), NULL, JSONExtractString(assumeNotNull(t.layer), 'name')) AS layer,
    JSONExtractFloat(ifNull(t.layer, '{{}}'), 'low') AS layer_low, JSONExtractFloat(ifNull(t.layer, '{{}}'), 'high') AS layer_high,
    arrayMap(step -> parseDateTime64BestEffort(step.at, 6, 'UTC'), {RAMP}) AS ramp_at, arrayMap(step -> step.share, {RAMP}) AS ramp_share,
    arrayMap(arm -> arm.name, {ARMS}) AS names,
    arrayCumSum(arrayMap(arm -> ifNull(arm.weight, 1.), {ARMS})) AS weighed,
    if(empty({SPANS}), names, arrayMap(span -> span.variant, {SPANS})) AS owners,
    if(empty({SPANS}), arrayMap(upper -> upper / weighed[-1], weighed), arrayMap(span -> span.high, {SPANS})) AS uppers
""".strip()
"""What assigning needs of a plan, made ready once for each plan and not for each assignment."""

NAMED = """
SELECT name, version, unit, named
FROM (SELECT t.name AS name, t.version AS version, t.overrides AS overrides FROM ({plans}) AS t)
ARRAY JOIN mapKeys(overrides) AS unit, mapValues(overrides) AS named
""".strip()

DERIVED: tuple[Named, ...] = (
    ("derived_bucket", "Nullable(Float64)", "The bucket computed again from the plan's salt and the unit or request; null without a plan."),
    ("derived_variant", "Nullable(String)", "The variant computed again: by hand, by the logged propensities, or by the plan's shares."),
    ("agrees", "Nullable(Bool)", "Whether bucket and variant computed again are those that were published."),
    ("layer_bucket", "Nullable(Float64)", "Where the unit falls in the plan's layer; null without one."),
    ("holdout_bucket", "Nullable(Float64)", "Where the unit falls for holdouts: the same in every experiment."),
    ("sample_bucket", "Nullable(Float64)", "Where the unit or request falls for sample and ramp."),
    ("eligible", "Nullable(Bool)", "Whether layer, holdout, sample and ramp let it take part, or it is named by hand; not its context."),
)


def bucket_of(*parts: str) -> str:
    """The bucket of a key, in SQL."""
    return f"bitShiftRight(xxHash64(concat({', '.join(parts)})), 11) / {PLACES}"


SUBJECT = "if(e.unit = 'request', a.request_id, a.unit_id)"
TERMS = (
    (bucket_of("e.salt", "':variant:'", SUBJECT), "derived"),
    ("arrayMap(name -> a.propensities[name], e.names)", "chances"),
    ("arrayCumSum(chances)", "summed"),
    ("arrayAll(chance -> chance >= 0, chances)", "sound"),
    ("if(sound, e.names[arrayFirstIndex(upper -> upper / summed[-1] > ifNull(derived, 1.), summed)], '')", "by_policy"),
    ("e.owners[arrayFirstIndex(upper -> upper > ifNull(derived, 1.), e.uppers)]", "by_plan"),
    ("multiIf(isNull(e.salt), NULL, a.override, o.named, a.policy_version != 0, by_policy, by_plan)", "dealt"),
    (f"if(isNull(e.layer), NULL, {bucket_of(repr('layer:'), 'e.layer', repr(':'), 'a.unit_id')})", "in_layer"),
    (f"if(isNull(e.salt), NULL, {bucket_of(repr('holdout:'), 'a.unit_id')})", "in_holdout"),
    (bucket_of("e.salt", "':sample:'", SUBJECT), "in_sample"),
    ("if(empty(e.ramp_at), 1., e.ramp_share[arrayLastIndex(at -> at <= a.time, e.ramp_at)])", "ramped"),
    ("ifNull(in_layer >= e.layer_low AND in_layer < e.layer_high, true) AND in_holdout >= e.holdout", "let_in"),
)
"""What the columns are computed by; each may use those before it."""


def assignments_select(columns: tuple[Named, ...], once: str, key: tuple[str, ...]) -> str:
    """Each assignment of ``once``, derived again. ``key`` tells two plans apart; the first of a version counts.

    Units named by hand are joined one by one: a plan that names many of them would else be copied whole for each assignment.
    """
    plans = first("experiments", key, OF_PLAN)
    named = NAMED.replace("{plans}", first("experiments", key, "t.*"))
    shown = ",\n    ".join(f"a.`{name}` AS `{name}`" for name, *_ in columns)
    terms = ",\n    ".join(f"{expression} AS {name}" for expression, name in TERMS)
    return f"""
WITH
    {terms}
SELECT
    {shown},
    derived AS derived_bucket, dealt AS derived_variant, derived = a.bucket AND dealt = a.variant AS agrees,
    in_layer AS layer_bucket, in_holdout AS holdout_bucket, in_sample AS sample_bucket,
    if(isNull(e.salt), NULL, a.override OR (let_in AND (in_sample < e.sample * ramped))) AS eligible
FROM (
{once}
) AS a
LEFT ANY JOIN (
{plans}
) AS e ON a.experiment = e.name AND a.plan_version = e.version
LEFT ANY JOIN (
{named}
) AS o ON a.experiment = o.name AND a.plan_version = o.version AND a.unit_id = o.unit
{SETTINGS}
""".strip()

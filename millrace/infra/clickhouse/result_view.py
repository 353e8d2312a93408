"""Results as analysts compare them: one row for each result, metric and variant, with its numbers as columns.

A number that cannot be told is null, and ``cannot_tell`` says why. The control has no effect, so its columns are null too.
"""

from __future__ import annotations

from msgspec import Struct

from millrace.infra.clickhouse.view import COPIES, SETTINGS, Named, View, first, taken

NUMBER, WORD = "Nullable(Float64)", "LowCardinality(String)"
KEPT = ("experiment", "plan_version", "time", "difference", "alpha")


class Extract(Struct, frozen=True):
    """A column that is taken out of JSON: ``source`` is one of the texts that the query names, ``path`` the keys and places from there."""

    name: str
    type: str
    source: str
    path: tuple[str | int, ...]
    comment: str

    @property
    def sql(self) -> str:
        """Its expression. Of a number that is something else, as where it cannot be told, it is null."""
        steps = "".join(f", {step!r}" for step in self.path)
        plain = "String" if self.type == WORD else self.type
        return f"JSONExtract({self.source}{steps}, {plain!r}) AS `{self.name}`"


MIXTURE = ("always_valid", "mixture")
EXTRACTS = (
    Extract("verdict", WORD, "decision", ("verdict",), "What to do: implement, reject, continue or invalid."),
    Extract("decided", WORD, "decision", ("variant",), "The variant that this is about, where it is about one."),
    Extract("rule", WORD, "decision", ("rule",), "The rule that led there."),
    Extract("reason", "String", "decision", ("reason",), "Why, in words."),
    Extract("metric", WORD, "m", ("name",), "The metric."),
    Extract("kind", WORD, "m", ("kind",), "mean, proportion, ratio or quantile."),
    Extract("role", WORD, "m", ("role",), "primary, secondary or guardrail."),
    Extract("units", "Int64", "arm.2", ("units",), "Units of this variant that count."),
    Extract("mean", NUMBER, "arm.2", ("mean",), "The mean of the variant; of a ratio, the quotient of the sums."),
    Extract("variance", NUMBER, "arm.2", ("variance",), "Its variance over units."),
    Extract("effect", NUMBER, "estimate", ("effect",), "The variant against the control, relative or absolute as `difference` says."),
    Extract("std_error", NUMBER, "estimate", ("std_error",), "Its standard error."),
    Extract("low", NUMBER, "estimate", ("fixed", "interval", 1), "The interval's lower end; right if looked at once."),
    Extract("high", NUMBER, "estimate", ("fixed", "interval", 2), "The interval's upper end."),
    Extract("level", NUMBER, "estimate", ("fixed", "level"), "Its level, where that is not `alpha`: it goes with the adjusted p-value."),
    Extract("p_value", NUMBER, "estimate", ("fixed", "p_value"), "The test's p-value; right if looked at once."),
    Extract("adjusted_p_value", NUMBER, "estimate", ("fixed", "adjusted_p_value"), "The same, corrected over metrics and variants."),
    Extract("always_low", NUMBER, "estimate", ("always_valid", "interval", 1), "The same, always valid: right at every look."),
    Extract("always_high", NUMBER, "estimate", ("always_valid", "interval", 2), "The upper end of that."),
    Extract("always_level", NUMBER, "estimate", ("always_valid", "level"), "The level of that, where it is not `alpha`."),
    Extract("always_p_value", NUMBER, "estimate", ("always_valid", "p_value"), "The always-valid p-value at these offsets."),
    Extract("smallest_p_value", NUMBER, "estimate", ("always_valid", "smallest_p_value"), "The smallest of those of all looks."),
    Extract("tau", NUMBER, "estimate", (*MIXTURE, "tau"), "The mixture SPRT's standard deviation of plausible effects."),
    Extract("log_evalue", NUMBER, "estimate", (*MIXTURE, "log_evalue"), "The logarithm of its e-value at these offsets."),
    Extract("largest_log_evalue", NUMBER, "estimate", (*MIXTURE, "so_far", "log_evalue"), "The largest of those of all looks."),
    Extract("mixture_p_value", NUMBER, "estimate", (*MIXTURE, "so_far", "p_value"), "The p-value that follows from the largest."),
    Extract("mixture_low", NUMBER, "estimate", (*MIXTURE, "interval", 1), "Its interval at these offsets, right at every look."),
    Extract("mixture_high", NUMBER, "estimate", (*MIXTURE, "interval", 2), "The upper end of that."),
    Extract("chance_to_win", NUMBER, "estimate", ("bayesian", "chance_to_win"), "The posterior chance that the variant is better."),
    Extract("cohens_d", NUMBER, "estimate", ("cohens_d",), "The effect in standard deviations."),
    Extract("cannot_tell", "String", "estimate", ("reason",), "Why there is no effect, where there is none."),
    Extract("harm_limit", NUMBER, "harm", ("limit",), "Of a guardrail: the harm that is tolerated."),
    Extract("harm_bound", NUMBER, "harm", ("bound",), "Of a guardrail: above the limit, it is breached."),
    Extract("harm_p_value", NUMBER, "harm", ("p_value",), "Of a guardrail: the one-sided always-valid test's p-value."),
    Extract("look", "Nullable(Int64)", "seen", ("number",), "The newest of the planned looks, from 1."),
    Extract("look_z", NUMBER, "seen", ("z",), "The effect in standard errors, at that look."),
    Extract("look_boundary", NUMBER, "seen", ("boundary",), "The size from which on it crosses, at that look."),
    Extract("look_nominal_alpha", NUMBER, "seen", ("nominal_alpha",), "What an ordinary p-value must be below, at that look."),
    Extract("look_low", NUMBER, "seen", ("interval", 1), "The repeated interval of that look: right at all looks together."),
    Extract("look_high", NUMBER, "seen", ("interval", 2), "The upper end of that."),
    Extract("crossed", "Nullable(Bool)", "seen", ("crossed",), "Whether it crossed the boundary at that look."),
    Extract("breached", "Nullable(Bool)", "harm", ("breached",), "Of a guardrail: whether the harm exceeds its limit."),
)
ABOUT = "A judged experiment by metric and variant: the decision, effects, intervals and p-values. Every result that there ever was."


def experiment_results() -> View:
    """The view of all results, taken apart."""
    columns: tuple[Named, ...] = (
        taken("results", "id", "result_id"),
        *(taken("results", name) for name in KEPT),
        ("variant", WORD, "The variant, the control among them."),
        *((extract.name, extract.type, extract.comment) for extract in EXTRACTS),
        ("_appended", "DateTime64(3, 'UTC')", "When the broker appended the result."),
        ("duplicates", "UInt64", "How often the same result was published again."),
    )
    return View("v_experiment_results", columns, _select(), ABOUT)


def _select() -> str:
    once = first("results", ("id",), f"t.*, {COPIES} AS duplicates")
    extracts = ",\n    ".join(extract.sql for extract in EXTRACTS)
    return (
        f"SELECT id AS result_id, {', '.join(KEPT)}, arm.1 AS variant,\n    {extracts},\n    _appended, duplicates\n"
        "FROM (\n"
        "    SELECT *, m, arm, JSONExtractArrayRaw(m, 'comparisons') AS comparisons,\n"
        "        arrayFirst(c -> JSONExtractString(c, 'variant') = arm.1, comparisons) AS comparison,\n"
        "        JSONExtractRaw(comparison, 'estimate') AS estimate, JSONExtractRaw(comparison, 'harm') AS harm,\n"
        "        JSONExtractRaw(comparison, 'look') AS seen\n"
        f"    FROM (SELECT * EXCEPT (units) FROM (\n{once}\n)) AS r\n"
        "    ARRAY JOIN JSONExtractArrayRaw(metrics) AS m\n"
        "    ARRAY JOIN JSONExtractKeysAndValuesRaw(m, 'arms') AS arm\n"
        f")\n{SETTINGS}"
    )

"""Charts of effects and of how values are spread, as plain plotly figures: data in, a dictionary out that ``Plotly.newPlot`` draws."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millrace.schemas.result import Estimate
from millrace.workers.report.content import Report, Spread
from millrace.workers.report.drawing import CONTROL, Figure, colours, effect_title, label, layout, level, roomy, scale, short

ROW_PIXELS = 46
TAIL = 0.99
"""So many of the values are always in sight."""


def forests(report: Report) -> dict[str, Figure]:
    """Every treatment on every metric that can be told: the always-valid interval thin, the fixed one thick, the effect as a dot.

    Relative effects share one chart. Differences are in each metric's own units, so each has a chart of its own.
    """
    found = [(m.name, c.variant, c.estimate) for m in report.result.metrics for c in m.comparisons if isinstance(c.estimate, Estimate)]
    if not found:
        return {}
    if report.result.difference == "relative":
        figure = _intervals(
            report, [(f"{short(metric, 28)} · {short(variant, 28)}", variant, estimate) for metric, variant, estimate in found]
        )
        figure["layout"]["xaxis"]["title"] = {"text": label(_against(report))}
        return {"": figure}
    charts = {}
    for name in dict.fromkeys(metric for metric, _, _ in found):
        charts[name] = _intervals(report, [(short(variant), variant, estimate) for metric, variant, estimate in found if metric == name])
        charts[name]["layout"]["xaxis"]["title"] = {"text": label(f"{short(name)}: {_against(report)}")}
    return charts


def segments(report: Report) -> Figure:
    """The effect on the metric that decides, segment by segment."""
    told = [(s, s.estimate) for s in report.segments if isinstance(s.estimate, Estimate)]
    figure = _intervals(report, [(f"{short(s.segment, 30)} · {short(s.variant, 24)} ({s.units:,})", s.variant, one) for s, one in told])
    figure["layout"]["xaxis"]["title"] = {"text": label(f"{short(report.primary)}: {_against(report)}")}
    return figure


def _intervals(report: Report, rows: Sequence[tuple[str, str, Estimate]]) -> Figure:
    """Rows are places 0, 1, ...: two names that are short for the same must not become one row."""
    colour, factor = colours(report), scale(report)
    traces = []
    for place, (name, variant, estimate) in enumerate(rows):
        own = colour.get(variant, CONTROL)
        for width, ends, what in ((2, estimate.always_valid.interval, "always valid"), (7, estimate.fixed.interval, "fixed horizon")):
            hover = f"{what}: %{{x:.4g}}<extra>{label(name)}</extra>"
            line = {"type": "scatter", "mode": "lines", "x": [end * factor for end in ends], "y": [place, place]}
            traces.append(line | {"line": {"color": own, "width": width}, "hovertemplate": hover})
        dot = {"color": "white", "size": 9, "line": {"color": own, "width": 3}}
        hover = f"effect: %{{x:.4g}}<extra>{label(name)}</extra>"
        traces.append(
            {"type": "scatter", "mode": "markers", "x": [estimate.effect * factor], "y": [place], "marker": dot, "hovertemplate": hover}
        )
    drawn = layout(height=110 + ROW_PIXELS * max(1, len(rows)), margin_left=40)
    names = {"tickvals": list(range(len(rows))), "ticktext": [label(name) for name, *_ in rows]}
    drawn["yaxis"] |= {"range": [len(rows) - 0.5, -0.5], "type": "linear", "showgrid": False, "ticklabelstandoff": 8, **names}
    drawn["shapes"] = [level("x", 0.0)]
    drawn["xaxis"]["range"] = roomy([end * factor for *_, one in rows for end in (*one.always_valid.interval, *one.fixed.interval)])
    return {"data": traces, "layout": drawn}


def spread(report: Report, metric: str) -> Figure:
    """How values that are not 0 are spread over units, a violin for each variant; its name says how many units have one.

    A few values that would press the others flat are left out, for the smoothing would be theirs too.
    """
    colour, traces = colours(report), []
    own = _ordered(report, [spread for spread in report.spreads if spread.metric == metric])
    low, high = _in_sight([value for found in own for value in found.values if value])
    for found in own:
        values = [value for value in found.values if value]
        share = f" ({len(values) / len(found.values):.0%} not 0)" if found.values else ""
        seen = [value for value in values if low <= value <= high]
        traces.append(
            {"type": "violin", "y": seen, "x0": label(short(found.variant, 24) + share), "name": label(found.variant),
             "line": {"color": colour.get(found.variant, CONTROL)}, "box": {"visible": True}, "points": False, "spanmode": "hard",
             "hoveron": "violins", "scalemode": "width"}
        )  # fmt: skip
    drawn = layout()
    drawn["xaxis"] |= {"type": "category"}
    drawn["yaxis"]["title"] = {"text": label(f"{short(metric)}, per unit")}
    return {"data": traces, "layout": drawn}


def _in_sight(values: Sequence[float]) -> tuple[float, float]:
    """Between which values a violin is drawn: all of them, unless the outermost at an end are more than twice as far as 99 % of all.

    >>> _in_sight([1.0, 2.0]), _in_sight([*[1.0] * 200, 50.0])
    ((1.0, 2.0), (1.0, 1.2))
    """
    if not values:
        return 0.0, 0.0
    rising = sorted(values)
    low, high = rising[0], rising[-1]
    usual = rising[int(TAIL * (len(rising) - 1))], rising[int((1.0 - TAIL) * (len(rising) - 1))]
    if usual[0] > 0.0 and high > 2.0 * usual[0]:
        high = 1.2 * usual[0]
    if usual[1] < 0.0 and low < 2.0 * usual[1]:
        low = 1.2 * usual[1]
    return low, high


def novelty(report: Report) -> Figure:
    """The effect on each day since the exposure; variants stand a little apart."""
    factor, colour = scale(report), colours(report)
    traces = []
    variants = list(dict.fromkeys(age.variant for age in report.ages))
    for place, variant in enumerate(variants):
        ages = [age for age in report.ages if age.variant == variant]
        apart = 0.08 * (place - (len(variants) - 1) / 2)
        error = {"type": "data", "symmetric": False, "array": [(a.interval[1] - a.effect) * factor for a in ages],
                 "arrayminus": [(a.effect - a.interval[0]) * factor for a in ages], "thickness": 1}  # fmt: skip
        traces.append(
            {"type": "scatter", "mode": "lines+markers", "x": [a.day + apart for a in ages], "y": [a.effect * factor for a in ages],
             "error_y": error, "name": label(variant), "line": {"color": colour.get(variant, CONTROL)}}
        )  # fmt: skip
    drawn = layout(legend=True)
    drawn["xaxis"] |= {"title": {"text": "days since exposure"}, "dtick": 1 if len(report.ages) < 16 * len(variants) else 7}
    drawn["yaxis"]["title"] = {"text": effect_title(report)}
    drawn["shapes"] = [level("y", 0.0)]
    return {"data": traces, "layout": drawn}


def _ordered(report: Report, found: Iterable[Spread]) -> list[Spread]:
    """In the plan's order: the control first."""
    places = {variant.name: place for place, variant in enumerate(report.plan.variants)}
    return sorted(found, key=lambda one: places.get(one.variant, len(places)))


def _against(report: Report) -> str:
    control = short(report.control, 28)
    return f"relative effect against {control}, %" if report.result.difference == "relative" else f"difference from {control}"

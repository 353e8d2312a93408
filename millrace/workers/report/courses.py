"""Charts in time: the effect at every look, means as they settled, and how variants filled or were weighed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from millrace.workers.report.content import Look, Point, Report
from millrace.workers.report.drawing import CONTROL, Figure, colours, effect_title, faint, label, layout, level, scale, short

SETTLED = 0.05
"""Axes are made for what came after this share of the units: before, intervals are so wide that nothing else would be seen."""


def effect_over_time(report: Report, variant: str) -> Figure:
    """The effect on the metric that decides at every look: the confidence sequence as a band, the fixed interval dotted."""
    factor, colour = scale(report), colours(report)[variant]
    looks = sorted((k for k in report.looks if k.metric == report.primary and k.variant == variant), key=lambda k: k.time)
    times = [_moment(look.time) for look in looks]
    low, high = ([look.always_valid[end] * factor for look in looks] for end in (0, 1))
    traces = [
        {"type": "scatter", "x": times, "y": low, "mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"},
        {"type": "scatter", "x": times, "y": high, "mode": "lines", "line": {"width": 0}, "fill": "tonexty",
         "fillcolor": faint(colour), "name": "always valid"},
        *(
            {"type": "scatter", "x": times, "y": [look.fixed[end] * factor for look in looks], "mode": "lines",
             "line": {"width": 1, "dash": "dot", "color": colour}, "name": "fixed horizon, right at one look only", "showlegend": end == 0}
            for end in (0, 1)
        ),
        {"type": "scatter", "x": times, "y": [look.effect * factor for look in looks], "mode": "lines+markers",
         "line": {"width": 2, "color": colour}, "marker": {"size": 4}, "name": "effect"},
    ]  # fmt: skip
    drawn = _timed()
    drawn["yaxis"] |= {"title": {"text": effect_title(report)}, **_settled(looks, factor)}
    drawn["shapes"] = [level("y", 0.0)]
    return {"data": traces, "layout": drawn}


def _settled(looks: Sequence[Look], factor: float) -> dict[str, Any]:
    """The range of the axis: of looks at some units at least, with 0 in it."""
    most = max((look.units for look in looks), default=0)
    ends = [end * factor for look in looks if look.units >= SETTLED * most for end in look.always_valid]
    if not ends:
        return {}
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.08 * (high - low)
    return {"range": [low - room, high + room]} if room > 0.0 else {}


def cumulative(report: Report) -> Figure:
    """The mean over all units exposed so far, up to each point in time."""
    metric = next((m for m in report.plan.metrics if m.name == report.primary), None)
    share = metric is not None and metric.kind == "proportion"
    told = f"{short(report.primary)}, {'share of units' if share else 'mean per unit'}"
    if metric is not None and metric.kind == "ratio":
        told = f"{short(report.primary)}, ratio of sums"
    drawn = _timed()
    drawn["yaxis"] |= {"title": {"text": label(told)}, "tickformat": ".3~%" if share else ""}
    return {"data": [_course(report, name, [p.mean for p in points], points) for name, points in _by_variant(report)], "layout": drawn}


def sample_ratio(report: Report) -> Figure:
    """Units of each variant so far, against those that the plan gives it: 0 is as planned. Variants of weight 0 are left out."""
    weights = {variant.name: variant.weight for variant in report.plan.variants}
    whole = sum(weights.values()) or 1.0
    totals: dict[datetime, int] = {}
    for point in report.points:
        totals[point.time] = totals.get(point.time, 0) + point.units
    traces = []
    for name, points in _by_variant(report):
        if weights.get(name):
            away = [p.units / (totals[p.time] * weights[name] / whole) - 1.0 for p in points]
            traces.append(_course(report, name, away, points))
    drawn = _timed()
    drawn["yaxis"] |= {"title": {"text": "units more or fewer than planned"}, "tickformat": "+.2~%", **_late(report, traces)}
    drawn["shapes"] = [level("y", 0.0, dash="dash")]
    return {"data": traces, "layout": drawn}


def _late(report: Report, traces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The range of the axis, without the first points, where a handful of units are many per cent."""
    by_time: dict[str, int] = {}
    for point in report.points:
        by_time[_moment(point.time)] = by_time.get(_moment(point.time), 0) + point.units
    most = max(by_time.values(), default=0)
    seen = [abs(y) for one in traces for x, y in zip(one["x"], one["y"], strict=True) if by_time[x] >= SETTLED * most]
    top = max([0.005, *(1.3 * away for away in seen)])
    return {"range": [-top, top]}


def weights(report: Report) -> Figure:
    """The chance that the policy gave each variant, from version to version; the newest one's until the result."""
    traces = []
    for variant in report.plan.variants:
        own = [(_moment(one.time), one.weights.get(variant.name, 0.0)) for one in report.weights]
        own += [(_moment(report.result.time), own[-1][1])] if own else []
        line = {"color": colours(report)[variant.name], "width": 2, "shape": "hv"}
        traces.append(
            {"type": "scatter", "mode": "lines", "x": [x for x, _ in own], "y": [y for _, y in own],
             "name": label(variant.name), "line": line}
        )  # fmt: skip
    drawn = _timed()
    floor = report.plan.allocation.floor if report.plan.allocation else 0.0
    drawn["shapes"] = [level("y", floor, dash="dash")]
    drawn["yaxis"] |= {"title": {"text": "chance of a request"}, "tickformat": ".3~%", "range": [-0.02, 1.02]}
    return {"data": traces, "layout": drawn}


def shares(report: Report) -> Figure:
    """The share of units (or requests) in each variant so far, of a plan whose weights are learnt."""
    totals: dict[datetime, int] = {}
    for point in report.points:
        totals[point.time] = totals.get(point.time, 0) + point.units
    drawn = _timed()
    drawn["yaxis"] |= {"title": {"text": "share so far"}, "tickformat": ".3~%", "range": [-0.02, 1.02]}
    traces = [_course(report, name, [p.units / totals[p.time] for p in points], points) for name, points in _by_variant(report)]
    return {"data": traces, "layout": drawn}


def _by_variant(report: Report) -> list[tuple[str, list[Point]]]:
    """The points of each variant that has some, in the order of time."""
    found: dict[str, list[Point]] = {variant.name: [] for variant in report.plan.variants}
    for point in sorted(report.points, key=lambda point: point.time):
        found.setdefault(point.variant, []).append(point)
    return [(name, points) for name, points in found.items() if points]


def _course(report: Report, variant: str, values: Sequence[float | None], points: Sequence[Point]) -> dict[str, Any]:
    line = {"color": colours(report).get(variant, CONTROL), "width": 2}
    x = [_moment(point.time) for point in points]
    return {"type": "scatter", "mode": "lines+markers", "x": x, "y": list(values), "name": label(variant), "line": line}


def _timed() -> dict[str, Any]:
    """A chart whose x is time, in UTC."""
    drawn = layout(legend=True)
    drawn["xaxis"] |= {"type": "date", "title": {"text": "UTC", "font": {"size": 11}}}
    return drawn


def _moment(time: datetime) -> str:
    """A time as plotly takes it for UTC: with an offset it would be the reader's."""
    return time.replace(tzinfo=None).isoformat()

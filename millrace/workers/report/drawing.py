"""What all charts have in common: colours, axes, lines, and labels that mean nothing to plotly but their letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millrace.workers.report.content import Report

Figure = dict[str, Any]
CONTROL = "#64748b"
TREATMENTS = ("#1d4ed8", "#c2410c", "#047857", "#7e22ce", "#be123c", "#0e7490")
INK, GRID, BAND = "#1f2937", "#e5e7eb", 0.14
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": INK}
LABEL_CHARACTERS = 44


def label(text: str) -> str:
    """A name as plotly draws it letter by letter: it takes ``<b>`` for bold, ``%{x}`` for a number and ``&lt;`` for ``<``.

    >>> label("<b>%{x}&")
    '&lt;b&gt;% {x}&amp;'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def short(text: str, characters: int = LABEL_CHARACTERS) -> str:
    """A name that is too long for an axis, without its middle.

    >>> short("a-very-long-name", 9)
    'a-ve…name'
    """
    if len(text) <= characters:
        return text
    half = (characters - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def colours(report: Report) -> dict[str, str]:
    """A colour for each variant, the same in every chart; the control is grey."""
    return {report.control: CONTROL} | {name: TREATMENTS[at % len(TREATMENTS)] for at, name in enumerate(report.treatments)}


def scale(report: Report) -> float:
    """Relative effects are drawn in per cent."""
    return 100.0 if report.result.difference == "relative" else 1.0


def effect_title(report: Report) -> str:
    """What an axis of effects says."""
    return "effect, %" if report.result.difference == "relative" else "effect"


def layout(*, height: int = 380, margin_left: int = 80, legend: bool = False) -> dict[str, Any]:
    """A chart without anything in it."""
    axis = {"gridcolor": GRID, "zeroline": False, "automargin": True}
    return {
        "height": height,
        "margin": {"l": margin_left, "r": 30, "t": 30, "b": 60},
        "font": FONT,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "showlegend": legend,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
    }


def level(axis: str, value: float, colour: str = INK, dash: str = "solid") -> dict[str, Any]:
    """A line across the chart where an axis has a value."""
    other = "y" if axis == "x" else "x"
    return {"type": "line", f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper",
            "line": {"color": colour, "width": 1, "dash": dash}}  # fmt: skip


def faint(colour: str) -> str:
    """A colour to fill a band with."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{BAND})"


def roomy(ends: Sequence[float]) -> list[float]:
    """From the lowest to the highest end and 0, with room at both sides."""
    low, high = min([0.0, *ends]), max([0.0, *ends])
    room = 0.05 * (high - low) or 1.0
    return [low - room, high + room]

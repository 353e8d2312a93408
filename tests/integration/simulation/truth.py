"""What a result must say, in numpy from each unit's own values: the formulas of docs/statistics.md, without sums and without millrace."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.integration.simulation.world import World

STEP = {"revenue": 0.01, "bought": 1.0, "per-visit": 0.01, "errors": 1.0}
Values = np.ndarray[Any, np.dtype[np.floating[Any]]]


def sums(world: World) -> dict[str, dict[str, tuple[int, ...]]]:
    """Metric to arm to the nine sums, in whole steps."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for arm, name in enumerate(("control", "treatment")):
        for metric, (y, z, x) in world.values(arm).items():
            products = (y, y * y, z, z * z, y * z, x, x * x, y * x)
            found.setdefault(metric, {})[name] = (len(y), *(int(product.sum()) for product in products))
    return found


def effects(world: World) -> dict[str, tuple[float, float]]:
    """Metric to the treatment's lift over the control, and its standard error."""
    control, treatment = world.values(0), world.values(1)
    found = {}
    for metric, step in STEP.items():
        (yc, zc, xc), (yt, zt, xt) = ([part * step for part in arm[metric]] for arm in (control, treatment))
        if metric == "per-visit":
            found[metric] = _ratio(yc, zc / step, yt, zt / step)
        elif metric == "revenue":
            found[metric] = _cuped(yc, xc, yt, xt)
        else:
            found[metric] = _lift(yc.mean(), yc.mean() * (1 - yc.mean()) / len(yc), yt.mean(), yt.mean() * (1 - yt.mean()) / len(yt))
    return found


def _lift(control: Any, control_error: Any, treatment: Any, treatment_error: Any) -> tuple[float, float]:
    """The delta method's squared standard error of T / C - 1."""
    quotient = treatment / control
    return float(quotient - 1), float(np.sqrt(treatment_error + quotient**2 * control_error) / control)


def _ratio(yc: Values, zc: Values, yt: Values, zt: Values) -> tuple[float, float]:
    """Each ratio's error is that of its residuals."""
    rc, rt = yc.sum() / zc.sum(), yt.sum() / zt.sum()
    errors = [(y - r * z).var(ddof=1) / z.mean() ** 2 / len(y) for y, z, r in ((yc, zc, rc), (yt, zt, rt))]
    return _lift(rc, errors[0], rt, errors[1])


def _cuped(yc: Values, xc: Values, yt: Values, xt: Values) -> tuple[float, float]:
    """Each unit's value less theta times how far its covariate is from that of all; the centre is random too."""
    x, y = np.concatenate([xc, xt]), np.concatenate([yc, yt])
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    control, treatment = (yc - slope * (xc - x.mean())).mean(), (yt - slope * (xt - x.mean())).mean()
    quotient = treatment / control
    common = slope * (len(yc) + quotient * len(yt)) / len(x)
    squared = (yt - common * xt).var(ddof=1) / len(yt) + (quotient * yc - common * xc).var(ddof=1) / len(yc)
    return float(quotient - 1), float(np.sqrt(squared) / control)

"""The demo's two models, of different kinds, trained in a second and exported to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from millrace.workers.demo.sites import Site

OPSET = 17
OUTPUT = "phishing"
COLUMN = 1
OUTPUTS = f"{OUTPUT}=probabilities:{COLUMN}"
"""The one output that predictions carry: the chance of phishing, as `millrace models add --outputs` takes it."""
THRESHOLD = 0.5


class Trained(Struct, frozen=True):
    """One model: its name and kind, its ONNX bytes, its features in order, and a function of (n, k) features to n probabilities."""

    name: str
    kind: str
    onnx: bytes
    features: tuple[str, ...]
    probability: Any

    def expected(self, sites: Sequence[Site]) -> list[float]:
        """What it must answer about each site, by the library that trained it and not by ONNX."""
        answers: list[float] = self.probability(matrix(sites, self.features)).tolist()
        return answers


def matrix(sites: Sequence[Site], features: Sequence[str]) -> NDArray[np.float32]:
    """The sites' features as an (n, k) matrix."""
    return np.array([[site.features[name] for name in features] for site in sites], np.float32)


def train(sites: Sequence[Site], seed: int) -> tuple[Trained, Trained]:
    """A logistic regression and gradient-boosted trees, the same ones for the same sites and seed."""
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    linear = make_pipeline(StandardScaler(), LogisticRegression())
    trees = GradientBoostingClassifier(random_state=seed)
    return (
        _trained("phishing-linear", "logistic regression", linear, sites),
        _trained("phishing-trees", "gradient-boosted trees", trees, sites),
    )


def _trained(name: str, kind: str, model: Any, sites: Sequence[Site]) -> Trained:
    from skl2onnx import to_onnx

    features = tuple(sites[0].features)
    rows = matrix(sites, features)
    model.fit(rows, [site.phishing for site in sites])
    exported = to_onnx(model, rows[:1], target_opset=OPSET, options={id(model): {"zipmap": False}})
    return Trained(name, kind, exported.SerializeToString(), features, lambda asked: model.predict_proba(asked)[:, COLUMN])

"""Reproductions: what papers claim, measured again by our own methods. No torch at the top."""

from __future__ import annotations

import importlib

from limbeck.errors import InputError, nearest
from limbeck.reproduce.claims import Claim, Evidence, Scale

__all__ = ["NAMES", "Claim", "Evidence", "Scale", "reproduce"]

NAMES = {
    "adaptive-ensemble": "Agree to Disagree: adaptive ensemble distillation in gradient space",
    "copy-average": "Should Under-parameterized Student Networks Copy or Average Teacher Weights?",
    "ensemble-diversity": "Diversity Matters When Learning From Ensembles",
    "factor-transfer": "Paraphrasing Complex Network: factor transfer",
    "slam": "SLaM: Student-Label Mixing for Distillation with Unlabeled Examples",
    "spectral": "How a student becomes a teacher: learning and forgetting through Spectral methods",
    "weighted": "Weighted Distillation with Unlabeled Examples",
    "wide-network": "Knowledge Distillation in Wide Neural Networks",
}
"""What can be reproduced: the name and its paper; the module has the name with underscores."""


def reproduce(name: str, scale: Scale) -> Evidence:
    """Measure the claims of `name`.

    Args:
        name: one of `NAMES`.
        scale: how much work, and where the runs go.

    Raises:
        InputError: an unknown name, or data that are not here.
    """
    if name not in NAMES:
        raise InputError(
            f"nothing called {name!r} can be reproduced{nearest(name, NAMES)}; known: "
            f"{', '.join(NAMES)}"
        )
    module = importlib.import_module(f"limbeck.reproduce.{name.replace('-', '_')}")
    evidence: Evidence = module.measure(scale)
    return evidence

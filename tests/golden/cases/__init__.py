"""What the golden runner knows: one table of cases a module, found by name in this package.

How to add a case. Files named `method.variant.cK.npz` hold `in_*`, `hp_*` and `expected_*`; give
the module of your room one entry in ``CASES``, keyed `method.variant`:

    CASES = {
        "kd.batchmean_T2": lambda v: F.kd_loss(v.logits_s, v.logits_t, temperature=v.T),
    }

`v` is a `Vector`: `v.logits_s` is `in_logits_s` as a tensor, `v.T` is `hp_T` as a number, string or
list, and `v.get("labels")` is None where the file lacks it. The function returns the loss, or a
dict with `loss` and every other stored output by name (`expected_mask` is `mask`). The runner takes
the gradients itself: each stored `expected_grad_X` is compared with the gradient of the loss with
respect to `v.X`. It runs a case twice, in float64 and in float32, with any shapes.

A published variant that limbeck does not follow goes into ``DEPARTURES`` instead, with the reason.

Files of another format are recognized by their whole stem: an entry in ``FAMILIES``, from a regular
expression to a function of the file's arrays that yields one `Close` for each stored result:

    FAMILIES = {r"slam_loss_grad_\\w+": slam_loss_grad}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = Mapping[str, np.ndarray]
Case = Callable[["Vector"], Tensor | Mapping[str, Tensor]]
Family = Callable[[Arrays], Iterator["Close"]]


class Vector:
    """The inputs and hyperparameters of one file, by attribute, in one floating point type."""

    def __init__(self, arrays: Arrays, dtype: torch.dtype) -> None:
        self.gradients = [k.removeprefix("expected_grad_") for k in arrays if "expected_grad_" in k]
        self._values: dict[str, Any] = {
            key.removeprefix("hp_"): _hyperparameter(value)
            for key, value in arrays.items()
            if key.startswith("hp_")
        }
        for key, value in arrays.items():
            if key.startswith("in_"):
                name = key.removeprefix("in_")
                self._values[name] = _tensor(value, dtype, name in self.gradients)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"the file holds neither in_{name} nor hp_{name}") from None

    def get(self, name: str, default: Any = None) -> Any:
        """The input or hyperparameter `name`, or `default` where the file has none."""
        return self._values.get(name, default)


@dataclass(frozen=True)
class Close:
    """One comparison: `ours` may differ from `stored` by `allowed`, a number or one an element."""

    name: str
    ours: Any
    stored: Any
    allowed: Any = 0.0

    def complaint(self) -> str | None:
        """A few words on the worst deviation, or None where all is within what is allowed."""
        ours, stored = _array(self.ours), _array(self.stored)
        if ours.shape != stored.shape:
            return f"{self.name} has shape {ours.shape}, stored is {stored.shape}"
        if ours.dtype.kind in "US" or stored.dtype.kind in "US":
            wrong = int(np.count_nonzero(ours != stored))
            return f"{self.name}: {wrong} entries differ" if wrong else None
        with np.errstate(invalid="ignore"):
            deviation = np.where(ours == stored, 0.0, np.abs(ours.astype(float) - stored))
        excess = ~(deviation <= np.broadcast_to(self.allowed, deviation.shape))
        if not excess.any():
            return None
        worst = np.where(excess, np.nan_to_num(deviation, nan=np.inf), -1.0).argmax()
        limit = np.broadcast_to(self.allowed, deviation.shape).flat[worst]
        return f"{self.name} is off by {deviation.flat[worst]:.2e}, allowed {limit:.2e}"


def _hyperparameter(value: np.ndarray) -> Any:
    return json.loads(str(value)) if value.dtype.kind == "U" else value.item()


def _tensor(value: np.ndarray, dtype: torch.dtype, requires_grad: bool) -> Tensor:
    tensor = torch.from_numpy(np.array(value))
    if not tensor.is_floating_point():
        return tensor
    return tensor.to(dtype).requires_grad_(requires_grad)


def _array(value: Any) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

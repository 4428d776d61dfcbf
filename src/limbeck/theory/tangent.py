"""Linearized students: gradients of every output with respect to the parameters, and their kernel.

Near its start a wide student is f(x; w) ≈ f₀(x) + φ(x)·Δ with φ(x) = ∂f/∂w, so that its training
ends where a linear system says, with the kernel Θ(x, x') = φ(x)·φ(x') (Jacot et al., NeurIPS 2018;
Ji and Zhu, NeurIPS 2020).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vjp, vmap

from limbeck.errors import InputError
from limbeck.nn.forward import as_record

BLOCK = 64
"""Samples whose gradients are taken at once, at most."""


class Tangent:
    """A model at its present parameters, in evaluation mode: outputs, gradients, kernel.

    Args:
        model: any module that returns logits [N, C]; it is copied. Batch normalization uses its
            running statistics, dropout is off. Only parameters that train are counted.
        memory: bytes that gradients may take at any time.

    Raises:
        InputError: no parameter trains, or the memory does not hold the gradients of one sample.
    """

    def __init__(self, model: nn.Module, *, memory: float = 2 * 2**30) -> None:
        self.model = copy.deepcopy(model).eval()
        named = dict(self.model.named_parameters())
        self.parameters = {n: p.detach() for n, p in named.items() if p.requires_grad}
        self.fixed = {n: p.detach() for n, p in named.items() if not p.requires_grad}
        self.fixed |= dict(self.model.named_buffers())
        if not self.parameters:
            raise InputError("no parameter of the student trains: its kernel is zero")
        self.size = sum(p.numel() for p in self.parameters.values())
        self.memory = memory

    def outputs(self, x: Tensor) -> Tensor:
        """Logits [N, C] at the present parameters, float64."""
        with torch.no_grad():
            return torch.cat(
                [self._call(self.parameters, part) for part in torch.split(x, 512)]
            ).double()

    def _call(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        logits = as_record(functional_call(self.model, {**parameters, **self.fixed}, (x,)))[
            "logits"
        ]
        return logits if logits.dim() == 2 else logits.reshape(len(x), -1)

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ logits / ∂ parameters, [N, C, P], parameters in the order of the model."""
        return torch.cat([self._block(part) for part in torch.split(x, BLOCK)])

    def _block(self, x: Tensor) -> Tensor:
        def one(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
            return self._call(parameters, sample[None])[0]

        try:
            parts = vmap(jacrev(one), (None, 0), randomness="same")(self.parameters, x)
        except RuntimeError:  # an operation that vmap does not know: one sample at a time
            singles = [jacrev(one)(self.parameters, sample) for sample in x]
            parts = {name: torch.stack([s[name] for s in singles]) for name in self.parameters}
        return torch.cat([parts[name].flatten(2) for name in self.parameters], 2)

    def kernel(self, x: Tensor, other: Tensor | None = None, *, full: bool = False) -> Tensor:
        """Θ between samples, in blocks that fit the memory.

        Args:
            x: samples [N, ...].
            other: samples [M, ...]; None: `x` itself.
            full: every pair of outputs; else each output with itself, which keeps nearly all of
                the kernel's energy at the start of a network.

        Returns:
            float64: [C, N, M], or with `full` [N, M, C, C].
        """
        rows = self._rows(x)
        if other is None and len(x) <= rows:
            whole = self.jacobian(x)
            return _products(whole, whole, full)
        columns = x if other is None else other
        lines = []
        for left in torch.split(x, rows):
            gradients = self.jacobian(left)
            parts = [
                _products(gradients, self.jacobian(c), full) for c in torch.split(columns, rows)
            ]
            lines.append(torch.cat(parts, 1 if full else 2))
        return torch.cat(lines, 0 if full else 1)

    def kernels(self, x: Tensor, held_out: Tensor) -> tuple[Tensor, Tensor]:
        """Θ(x, x) and Θ(held_out, x), with gradients of `x` taken once where they fit."""
        if len(x) > self._rows(x):
            return self.kernel(x), self.kernel(held_out, x)
        whole = self.jacobian(x)
        cross = [
            _products(self._block(part), whole, False) for part in torch.split(held_out, BLOCK)
        ]
        return _products(whole, whole, False), torch.cat(cross, 1)

    def _rows(self, x: Tensor) -> int:
        """Samples whose gradients fit into a third of the memory: two blocks and their making."""
        one = (
            self.outputs(x[:1]).shape[1] * self.size * next(iter(self.parameters.values())).itemsize
        )
        rows = int(self.memory / 3 // one)
        if rows < 1:
            raise InputError(
                f"the gradients of one sample take {one / 2**20:.0f} MiB, the memory limit is "
                f"{self.memory / 2**20:.0f} MiB for three of them: raise it"
            )
        return rows

    def product(self, x: Tensor, vector: Tensor) -> Tensor:
        """Θ(x, x) `vector` for all outputs, [N, C] each, without any gradient of a sample."""
        back: dict[str, Tensor] = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        for part, weights in zip(torch.split(x, BLOCK), torch.split(vector, BLOCK), strict=True):
            logits, pull = self._pull(part)
            for name, gradient in pull(weights.to(logits))[0].items():
                back[name] += gradient
        return torch.cat([self._push(part, back) for part in torch.split(x, BLOCK)]).to(vector)

    def _pull(self, x: Tensor) -> tuple[Tensor, Callable[..., tuple[dict[str, Tensor]]]]:
        logits, pull = vjp(functools.partial(self._call, x=x), self.parameters)[:2]
        return logits, pull

    def _push(self, x: Tensor, back: dict[str, Tensor]) -> Tensor:
        """The outputs' change along `back`: a pull-back is linear, and this is its transpose."""
        logits, pull = self._pull(x)
        transposed = vjp(lambda weights: pull(weights)[0], torch.zeros_like(logits))[1]
        change: Tensor = transposed(back)[0]
        return change


def _products(left: Tensor, right: Tensor, full: bool) -> Tensor:
    if full:
        return torch.einsum("ncp,mdp->nmcd", left, right).double()
    return torch.bmm(left.transpose(0, 1), right.permute(1, 2, 0)).double()


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    target: Tensor,
    *,
    tolerance: float = 1e-8,
    steps: int = 2000,
) -> tuple[Tensor, int]:
    """Solve A s = target for symmetric positive A, given as its products with a vector.

    Args:
        product: s to A s, of the shape of `target`.
        target: any shape.
        tolerance: of the residual's length over the target's.
        steps: at most.

    Returns:
        s, and how many products it took.

    Raises:
        InputError: the tolerance was not reached.
    """
    solution = torch.zeros_like(target)
    residual = target.clone()
    direction, size = residual.clone(), residual.square().sum()
    goal = tolerance**2 * size
    for step in range(steps):
        if size <= goal:
            return solution, step
        image = product(direction)
        length = size / (direction * image).sum()
        solution += length * direction
        residual -= length * image
        size, before = residual.square().sum(), size
        direction = residual + size / before * direction
    left = tolerance * float((size / goal).sqrt())
    raise InputError(f"{left:.1e} of the residual is left after {steps} steps: raise the ridge")

"""Large linear layers in training on a CPU, whose weights' gradients stay products of two factors.

The gradient of a weight W [out, in] is Gᵀ X, with the inputs X [B, in] and the gradients of the outputs G [B, out] of B
videos. Where B is small, memory bounds a training step: the product is written, read for its norm, read and written to
clip it, and read by the optimiser. Here only the factors are kept. The norm comes from two matrices [B, B], and the
optimiser makes the product block by block (`Factors.blocks`) while the block is in the cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from topgb.models.byfeature import set_child
from topgb.models.precision import computing_dtype

# Weights of fewer values stay in the cache anyway.
LEAST_VALUES = 1 << 20
# Values of a gradient that are made at once, 17 MB, and then read. Products of fewer rows take longer, because each of
# them copies the other factor into another order.
BLOCK = 1 << 22
# Factors are kept while B² (in + out) is at most this many times the number of the weight's values. Beyond, the
# products of the norm, in float64, take longer than the passes over the weight that they save.
MOST_PRODUCTS = 10


class Factors:
    """The gradient of a weight W [out, in] as Σ Gᵀ X + decay · W over the calls since `clear`.

    inputs     X of each call, float [B, in]
    gradients  G of each call, float [B, out]
    decay      the share of W itself in its gradient (an L2 penalty's), float32 []
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.inputs: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self.decay = torch.zeros(())
        # The inner product of Σ Gᵀ X with W, which is Σ G ∘ X Wᵀ, and that of W with itself.
        self._product = torch.zeros((), dtype=torch.float64)
        self._squares = torch.zeros(())

    def __bool__(self) -> bool:
        return bool(self.inputs) or bool(self.decay)

    def add(self, inputs: torch.Tensor, gradients: torch.Tensor, outputs: torch.Tensor) -> None:
        """Add the factors of one call, whose outputs without bias were `outputs` [B, out]."""
        self.inputs.append(inputs)
        self.gradients.append(gradients)
        self._product += (gradients.double() * outputs).sum()

    def add_decay(self, decay: torch.Tensor, squares: torch.Tensor) -> None:
        """Add `decay` · W to the gradient, for a weight whose values squared sum to `squares`."""
        self.decay += decay
        self._squares = squares

    def norm(self) -> float:
        """The Frobenius norm of the gradient.

        ‖Gᵀ X‖² is Σ (X Xᵀ) ∘ (G Gᵀ), in float64, because large terms of either sign may cancel.
        """
        inputs, gradients = (torch.cat(parts).double() for parts in (self.inputs, self.gradients))
        square = ((inputs @ inputs.T) * (gradients @ gradients.T)).sum()
        decay = self.decay.double()
        square += 2 * decay * self._product + decay.square() * self._squares
        return float(square.clamp_min(0.0).sqrt())

    def blocks(self, weight: torch.Tensor, scale: float) -> Iterator[tuple[slice, torch.Tensor]]:
        """The gradient times `scale`: rows of `weight`, and their gradient float32 [rows, in], valid until the next.

        Factors of a lower precision have a product of that precision, as in a plain layer under autocast.
        """
        inputs, gradients = torch.cat(self.inputs), torch.cat(self.gradients)
        exact = inputs.dtype == torch.float32
        gradients = (gradients.float() * scale).to(inputs.dtype)
        decay = float(self.decay) * scale
        count = min(len(weight), max(1, BLOCK // weight.shape[1]))
        space = torch.empty(count, weight.shape[1])
        for start in range(0, len(weight), count):
            rows = slice(start, min(start + count, len(weight)))
            block, own = space[: rows.stop - start], gradients[:, rows].T
            if exact:
                torch.mm(own, inputs, out=block)
            else:
                block.copy_(own @ inputs)
            if decay:
                # Not in the product: oneDNN would compile, and keep, another one for every value.
                block.add_(weight[rows], alpha=decay)
            yield rows, block

    def add_to(self, gradient: torch.Tensor, weight: torch.Tensor) -> None:
        """Add this gradient of `weight` to another one, float32 [out, in], in place."""
        for inputs, gradients in zip(self.inputs, self.gradients, strict=True):
            gradient.addmm_(gradients.float().T, inputs.float())
        gradient.add_(weight, alpha=float(self.decay))


class FactoredLinear(nn.Linear):
    """`nn.Linear` whose weight gets `factors` instead of a `grad`, where the rows of a call are few enough.

    Under autocast it keeps a copy of its weight in that dtype, `rounded`, until the weight changes.
    """

    def __init__(self, linear: nn.Linear):
        # The parameters are the other layer's own.
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.factors = Factors()
        self._rounded: torch.Tensor | None = None
        self._rounded_version = -1
        self.train(linear.training)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        size = self.in_features + self.out_features
        few = len(values) ** 2 * size <= MOST_PRODUCTS * self.weight.numel()
        if values.ndim != 2 or not few or not torch.is_grad_enabled():
            return super().forward(values)
        dtype = computing_dtype(values.device)
        weight = self.weight if dtype == torch.float32 else self.rounded(dtype)
        return _Product.apply(values, self.weight, self.bias, weight, self.factors)

    @torch.no_grad()
    def rounded(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight in `dtype` [out, in]; the same tensor until the weight changes."""
        if self._rounded is None or self._rounded.dtype != dtype:
            self._rounded, self._rounded_version = torch.empty_like(self.weight, dtype=dtype), -1
        # The version counts every change in place, also through a view.
        if self._rounded_version != self.weight._version:
            self._rounded.copy_(self.weight)
            self._rounded_version = self.weight._version
        return self._rounded

    def round_rows(self, rows: slice) -> None:
        """Round these rows anew, if the layer keeps rounded weights, while they are in the cache."""
        if self._rounded is not None:
            self._rounded[rows].copy_(self.weight[rows])

    def all_rounded(self) -> None:
        """Note that `round_rows` was called for all rows since the weight changed."""
        self._rounded_version = self.weight._version


class _Product(torch.autograd.Function):
    """values [B, in] · `used`ᵀ + bias, float [B, out]; `used` is the weight, perhaps in fewer bits.

    The gradient of the weight goes to `factors`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        used: torch.Tensor,
        factors: Factors,
    ) -> torch.Tensor:
        inputs = values.to(used.dtype)
        if used.dtype == torch.float32 and used.shape[1] > used.shape[0]:
            # Either library multiplies long rows faster on the left (benchmarks/few_rows.py).
            products = (used @ inputs.T).T.contiguous()
        else:
            products = inputs @ used.T
        ctx.factors, ctx.dtype = factors, values.dtype
        ctx.save_for_backward(inputs, used, products)
        return products if bias is None else products + bias.to(used.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs, used, products = ctx.saved_tensors
        own = gradients[0].contiguous()
        ctx.factors.add(inputs, own, products)
        of_values = (own @ used).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        return of_values, None, own.sum(0, dtype=torch.float32) if ctx.needs_input_grad[2] else None, None, None


def keep_factors(model: nn.Module) -> list[FactoredLinear]:
    """Replace the large linear layers of `model`, on a CPU, by `FactoredLinear`s of the same parameters; returns these.

    A layer of any subclass of `nn.Linear` stays as it is: its weight may be read elsewhere.
    """
    modules = dict(model.named_modules())
    found = []
    for name, module in modules.items():
        large = type(module) is nn.Linear and module.weight.numel() >= LEAST_VALUES
        if large and module.weight.requires_grad and module.weight.device.type == "cpu":
            parent, _, child = name.rpartition(".")
            found.append(FactoredLinear(module))
            set_child(modules[parent], child, found[-1])
    return found

"""Adam as TensorFlow 1 computes it, and gradient clipping variable by variable."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from topgb.models.factored import FactoredLinear
from topgb.models.penalty import block_squares

EPSILON = 1e-8


class TF1Adam(torch.optim.AdamW):
    """Adam whose ε stands outside the bias correction (2018: `tf.train.AdamOptimizer`).

    TensorFlow 1 divides by √v + ε (Kingma and Ba 2015, the form before section 2.1), PyTorch by √v / √(1 - β₂ᵗ) + ε
    (algorithm 1). PyTorch's step with ε / √(1 - β₂ᵗ) is therefore TensorFlow's. Weight decay acts on matrices only.

    Each gradient is first scaled to a norm of at most `clip_norm` (2018: `clip_gradient_norm`), unless that is None.
    `factored` are the layers whose weights, among the `parameters`, may have factors in place of a gradient.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        factored: Sequence[FactoredLinear] = (),
    ):
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for parameter in parameters:
            (matrices if parameter.ndim > 1 else others).append(parameter)
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        super().__init__([group for group in groups if group["params"]], lr=learning_rate, fused=True)
        self.steps = 0
        self._clip_norm = clip_norm
        self._factored = {linear.weight: linear for linear in factored}

    def step(self, closure=None):
        self.steps += 1
        for group in self.param_groups:
            group["eps"] = EPSILON / (1 - group["betas"][1] ** self.steps) ** 0.5
            for parameter in group["params"]:
                linear = self._factored.get(parameter)
                if linear is not None and linear.factors:
                    self._step_by_blocks(linear, group)
            if self._clip_norm is not None:
                clip_each(group["params"], self._clip_norm)
        return super().step(closure)

    @torch.no_grad()
    def _step_by_blocks(self, linear: FactoredLinear, group: dict[str, Any]) -> None:
        """The step that `AdamW` takes, for a weight whose gradient is kept as factors; clears the factors."""
        weight, factors = linear.weight, linear.factors
        if weight.grad is not None:
            # A call had too many rows for factors.
            factors.add_to(weight.grad, weight)
            factors.clear()
            return
        scale = 1.0
        if self._clip_norm is not None:
            scale = self._clip_norm / max(factors.norm(), self._clip_norm)
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        beta1, beta2 = group["betas"]
        for rows, block in factors.blocks(weight, scale):
            moments = state["exp_avg"][rows], state["exp_avg_sq"][rows]
            torch._fused_adamw_(
                [weight[rows]], [block], [moments[0]], [moments[1]], [], [state["step"]], lr=group["lr"], beta1=beta1,
                beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"], amsgrad=False, maximize=False,
            )  # fmt: skip
            linear.round_rows(rows)
        linear.all_rounded()
        factors.clear()

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.param_groups:
            group["lr"] = learning_rate

    def moments(self, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
        """The first and second moments by parameter name, as `NAME.exp_avg` and `NAME.exp_avg_sq`."""
        return {
            f"{name}.{key}": self.state[parameter][key]
            for name, parameter in parameters.items()
            for key in ("exp_avg", "exp_avg_sq")
            if parameter in self.state
        }

    def load_moments(
        self, parameters: dict[str, torch.nn.Parameter], moments: dict[str, torch.Tensor], steps: int
    ) -> None:
        """Restore the `moments` (as `moments` returns them) and the number of `steps` made."""
        self.steps = steps
        for name, parameter in parameters.items():
            self.state[parameter] = {
                "step": torch.tensor(float(steps), device=parameter.device),
                "exp_avg": moments[f"{name}.exp_avg"].to(parameter.device, copy=True),
                "exp_avg_sq": moments[f"{name}.exp_avg_sq"].to(parameter.device, copy=True),
            }


def clip_each(parameters: Iterable[torch.nn.Parameter], clip_norm: float) -> None:
    """Scale each parameter's gradient in place to a norm of at most `clip_norm` (2018: `clip_gradient_norm`)."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if any(gradient.device.type != "cpu" for gradient in gradients):
        clip_without_waiting(gradients, clip_norm)
        return
    for gradient in gradients:
        # Blocks are summed in float64, and a short gradient is not written at all.
        norm = sum(map(float, block_squares(gradient))) ** 0.5
        if norm > clip_norm:
            gradient.mul_(clip_norm / norm)


def clip_without_waiting(gradients: list[torch.Tensor], clip_norm: float) -> None:
    """`clip_each` for a GPU: a few operations over all gradients, none of which waits for a result."""
    # PyTorch's optimisers work in this way too; the operators have no public name.
    norms = torch._foreach_norm(gradients)
    torch._foreach_mul_(gradients, [clip_norm / norm.clamp_min(clip_norm) for norm in norms])

"""The steps of a GRU and their gradients, as one autograd function.

Autograd over hundreds of small steps costs several times their arithmetic. Here the loop over steps holds only the
products with the state, and the gradient of each weight is one matrix product over all steps.
"""

from typing import Any

import torch

from topgb.matmul_library import by_mkl

# oneDNN takes some 40 µs to begin a product. Where it multiplies twice as fast as MKL, it makes up for them in products
# of at least this many floating-point operations.
SMALL_PRODUCT = 10_000_000


class ResetBefore(torch.autograd.Function):
    """The recurrent part of the 2018 GRU: `projected` float32 [T · B, 3 · cells] to outputs float32 [T, B, cells].

    `projected` is the inputs' share of the reset gate, the update gate and the candidate, biases included, in `steps`
    frames (T); `gates` [2 · cells, cells] and `candidate` [cells, cells] are the weights of the state. From a state of
    zeros each step is

        reset, update = σ(projected_gates + gates · state)
        new           = tanh(projected_candidate + candidate · (reset ∘ state))
        state         = update ∘ state + (1 - update) ∘ new

    With `reverse` the steps run from the last frame to the first. `projected` is overwritten with the values of reset,
    update and new, and returned behind the outputs.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, gates: torch.Tensor, candidate: torch.Tensor, steps: int, reverse: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch, cells = len(projected) // steps, projected.shape[1] // 3
        values = projected.view(steps, batch, 3 * cells)
        gates_t, candidate_t = gates.float().T.contiguous(), candidate.float().T.contiguous()
        outputs = torch.empty(steps, batch, cells, device=projected.device)
        # Views of every step are made at once: one by one they would take as long as a small product.
        both, news = (part.unbind() for part in values.split([2 * cells, cells], dim=2))
        resets, updates = (part.unbind() for part in values[:, :, : 2 * cells].split(cells, dim=2))
        states, reset_state = outputs.unbind(), projected.new_empty(batch, cells)
        state = projected.new_zeros(batch, cells)
        with by_mkl(2 * batch * gates.numel() < SMALL_PRODUCT):
            for step in reversed(range(steps)) if reverse else range(steps):
                both[step].addmm_(state, gates_t).sigmoid_()
                torch.mul(resets[step], state, out=reset_state)
                new = news[step].addmm_(reset_state, candidate_t).tanh_()
                state = torch.lerp(new, state, updates[step], out=states[step])
        ctx.reverse = reverse
        ctx.mark_dirty(projected)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(projected, outputs, gates, candidate)
        return outputs, projected

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, outputs, gates, candidate = ctx.saved_tensors
        steps, batch, cells = outputs.shape
        gates_f, candidate_f = gates.float(), candidate.float()
        previous = _previous(outputs, ctx.reverse)
        reset, update, new = flat.view(steps, batch, 3 * cells).split(cells, dim=2)
        projected = torch.empty(steps, batch, 3 * cells, device=outputs.device)
        parts = projected.view(steps, batch, 3, cells)
        # First, for all steps at once, the factors of each gradient that do not depend on the gradient of the state.
        parts[:, :, 0] = previous * reset * (1 - reset)
        parts[:, :, 1] = (previous - new) * update * (1 - update)
        parts[:, :, 2] = (1 - update) * (1 - new.square())
        of_state, of_reset, of_new = parts[:, :, 1:].unbind(), parts[:, :, 0].unbind(), parts[:, :, 2].unbind()
        of_both, of_reset_state = projected[:, :, : 2 * cells].unbind(), projected.new_empty(batch, cells)
        state = torch.zeros_like(outputs[0])
        given, kept, opened = gradients[0].unbind(), update.unbind(), reset.unbind()
        with by_mkl(2 * batch * gates.numel() < SMALL_PRODUCT):
            for step in range(steps) if ctx.reverse else reversed(range(steps)):
                state.add_(given[step])
                of_state[step].mul_(state[:, None])
                torch.mm(of_new[step], candidate_f, out=of_reset_state)
                of_reset[step].mul_(of_reset_state)
                state.mul_(kept[step]).addcmul_(of_reset_state, opened[step]).addmm_(of_both[step], gates_f)
        projected = projected.flatten(0, 1)
        of_gates = projected[:, : 2 * cells].T @ previous.flatten(0, 1)
        of_candidate = projected[:, 2 * cells :].T @ (reset * previous).flatten(0, 1)
        return projected, of_gates.to(gates.dtype), of_candidate.to(candidate.dtype), None, None


def _previous(outputs: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The state before each step, [T, B, cells], from the outputs [T, B, cells] in the order of the frames."""
    previous = torch.zeros_like(outputs)
    if reverse:
        previous[:-1] = outputs[1:]
    else:
        previous[1:] = outputs[:-1]
    return previous

"""The steps of a GRU and their gradients, as one autograd function.

Autograd over hundreds of small steps costs several times their arithmetic. Here the loop over steps holds only the
products with the state, and the gradient of each weight is one matrix product over all steps.
"""

from typing import Any

import torch


class ResetBefore(torch.autograd.Function):
    """The recurrent part of the 2018 GRU: `projected` float32 [T, B, 3 · cells] to outputs float32 [T, B, cells].

    `projected` is the inputs' share of the reset gate, the update gate and the candidate, biases included; `gates`
    [2 · cells, cells] and `candidate` [cells, cells] are the weights of the state. From a state of zeros each step is

        reset, update = σ(projected_gates + gates · state)
        new           = tanh(projected_candidate + candidate · (reset ∘ state))
        state         = update ∘ state + (1 - update) ∘ new

    With `reverse` the steps run from the last frame to the first.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: torch.Tensor, gates: torch.Tensor, candidate: torch.Tensor, reverse: bool
    ) -> torch.Tensor:
        steps, batch, width = projected.shape
        cells = width // 3
        gates_t, candidate_t = gates.float().T.contiguous(), candidate.float().T.contiguous()
        both = torch.empty(steps, batch, 2 * cells, device=projected.device)
        candidates, outputs = (torch.empty(steps, batch, cells, device=projected.device) for _ in range(2))
        state = projected.new_zeros(batch, cells)
        for step in reversed(range(steps)) if reverse else range(steps):
            gate = torch.addmm(projected[step, :, : 2 * cells], state, gates_t, out=both[step]).sigmoid_()
            reset, update = gate.split(cells, dim=1)
            new = torch.addmm(projected[step, :, 2 * cells :], reset * state, candidate_t, out=candidates[step]).tanh_()
            state = torch.lerp(new, state, update, out=outputs[step])
        ctx.reverse = reverse
        ctx.save_for_backward(both, candidates, outputs, gates, candidate)
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        both, candidates, outputs, gates, candidate = ctx.saved_tensors
        steps, batch, cells = outputs.shape
        gates_f, candidate_f = gates.float(), candidate.float()
        previous = _previous(outputs, ctx.reverse)
        reset, update = both.split(cells, dim=2)
        # Factors that do not depend on the state's gradient, for all steps at once.
        by_update = (previous - candidates) * update * (1 - update)
        by_candidate = (1 - update) * (1 - candidates.square())
        by_reset = previous * reset * (1 - reset)
        projected = torch.empty(steps, batch, 3 * cells, device=outputs.device)
        state = torch.zeros_like(outputs[0])
        for step in range(steps) if ctx.reverse else reversed(range(steps)):
            state = state + gradients[0][step]
            own = projected[step]
            torch.mul(state, by_update[step], out=own[:, cells : 2 * cells])
            torch.mul(state, by_candidate[step], out=own[:, 2 * cells :])
            of_reset_state = own[:, 2 * cells :] @ candidate_f
            torch.mul(of_reset_state, by_reset[step], out=own[:, :cells])
            state = torch.addcmul(state * update[step], of_reset_state, reset[step])
            state = state.addmm(own[:, : 2 * cells], gates_f)
        flat = projected.flatten(0, 1)
        of_gates = flat[:, : 2 * cells].T @ previous.flatten(0, 1)
        of_candidate = flat[:, 2 * cells :].T @ (reset * previous).flatten(0, 1)
        return projected, of_gates.to(gates.dtype), of_candidate.to(candidate.dtype), None


def _previous(outputs: torch.Tensor, reverse: bool) -> torch.Tensor:
    """The state before each step, [T, B, cells], from the outputs [T, B, cells] in the order of the frames."""
    previous = torch.zeros_like(outputs)
    if reverse:
        previous[:-1] = outputs[1:]
    else:
        previous[1:] = outputs[:-1]
    return previous

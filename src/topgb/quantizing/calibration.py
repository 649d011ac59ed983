"""Calibrate the rounding of a model on records: which errors cancel out, and how much each tensor's errors cost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from topgb.batch import Batch
from topgb.evaluation.predictions import batches, no_video
from topgb.modelfile import LoadedModel
from topgb.modelfile.encodings import values
from topgb.models import Tagger
from topgb.models.readlinear import free_weights
from topgb.progress import SILENT, Progress
from topgb.quantizing.rounding import inverse_factor, root_mean_square
from topgb.quantizing.schemes import Factors, Scheme, encode
from topgb.records.dataset import Dataset

# Videos used, the first of the records.
MOST_VIDEOS = 4096
# Compensate within ranges of this many columns: the second-moment matrix grows with the square.
MOST_COLUMNS = 2048
# Sensitivity is measured at this step, in units of the tensor's root mean square: about 3 bits per weight.
TRIAL_STEP = 0.5
# Probabilities are kept this far from 0 and 1, where a divergence would be infinite.
EPSILON = 1e-6


@dataclass(frozen=True)
class Calibration:
    """Results of calibration, by a tensor's full name in the model file (`members.I.NAME`).

    factors      inverse-Hessian factors of the weights of called linear layers, one per 2,048 columns
    sensitivity  divergence of the member's probabilities when the tensor is rounded, divided by its squared step
    """

    factors: Mapping[str, Factors]
    sensitivity: Mapping[str, float]


def calibrate(
    model: LoadedModel, dataset: Dataset, names: list[str], progress: Progress = SILENT, most: int = MOST_VIDEOS
) -> Calibration:
    """Calibrate the rounding of the tensors `names` of `model` on the first `most` videos of `dataset`.

    No labels are needed. `model` holds float32 weights and predicts the same afterwards. Raises `InputError` where
    there is no video.
    """
    looked_at = list(_first(dataset, most))
    if not looked_at:
        raise no_video("calibrate on")
    by_member: dict[int, list[str]] = {}
    for name in names:
        by_member.setdefault(int(name.split(".")[1]), []).append(name)
    # Weights are changed in place below, and inputs are counted where layers are called.
    free_weights(model)
    progress.begin("calibrating", len(names) + len(by_member), "tensors")
    factors: dict[str, Factors] = {}
    sensitivity: dict[str, float] = {}
    for index, own in by_member.items():
        tagger, prefix = cast(Tagger, model.members[index]), f"members.{index}."
        exact, found = _exact(tagger, looked_at, {name.removeprefix(prefix) for name in own})
        factors |= {prefix + name: factor for name, factor in found.items()}
        progress.advance(1)
        parameters = {prefix + name: parameter for name, parameter in tagger.named_parameters()}
        for name in own:
            sensitivity[name] = _sensitivity(tagger, parameters[name], looked_at, exact)
            progress.advance(1)
    progress.end()
    return Calibration(factors, sensitivity)


def divergence(exact: torch.Tensor, other: torch.Tensor) -> float:
    """Kullback-Leibler divergence D(exact ‖ other) of probabilities [N, V], each class a Bernoulli variable.

    The divergence is summed over the classes and averaged over the N videos.
    """
    # Weights near the end of float32's range may give predictions that are not numbers.
    p, q = (one.nan_to_num(0.0).clamp(EPSILON, 1 - EPSILON) for one in (exact, other))
    return float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1).mean())


def _first(dataset: Dataset, most: int) -> Iterator[Batch]:
    seen = 0
    for batch in batches(dataset):
        # Copy, because the loader reuses a batch's memory for a later batch.
        yield Batch(list(batch.ids), batch.features.clone(), batch.num_frames.clone())
        seen += len(batch)
        if seen >= most:
            return


@torch.inference_mode()
def _predict(tagger: Tagger, batches: list[Batch]) -> torch.Tensor:
    return torch.cat([tagger.predict_batch(batch) for batch in batches])


def _exact(tagger: Tagger, batches: list[Batch], names: set[str]) -> tuple[torch.Tensor, dict[str, Factors]]:
    """The member's probabilities, float32 [N, V], and factors by tensor name.

    Factors exist only for tensors in `names` that are weights of linear layers the model calls, whose inputs are seen.
    """
    moments: dict[str, list[torch.Tensor]] = {}
    hooks = []
    for path, module in tagger.named_modules():
        if isinstance(module, nn.Linear) and f"{path}.weight" in names:

            def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = f"{path}.weight") -> None:
                parts = inputs[0].reshape(-1, inputs[0].shape[-1]).split(MOST_COLUMNS, dim=1)
                products = [part.T @ part for part in parts]
                if name in moments:
                    products = [old.add_(new) for old, new in zip(moments[name], products, strict=True)]
                moments[name] = products

            hooks.append(module.register_forward_pre_hook(count))
    try:
        exact = _predict(tagger, batches)
    finally:
        for hook in hooks:
            hook.remove()
    # Second moments of huge inputs overflow. Without factors a layer is rounded without error compensation.
    finite = {name: parts for name, parts in moments.items() if all(bool(part.isfinite().all()) for part in parts)}
    return exact, {name: [inverse_factor(moment) for moment in parts] for name, parts in finite.items()}


def _sensitivity(tagger: Tagger, parameter: nn.Parameter, batches: list[Batch], exact: torch.Tensor) -> float:
    """Divergence from `exact` when `parameter` alone is rounded with a trial step, divided by that step squared."""
    weights = parameter.data
    step = TRIAL_STEP * root_mean_square(weights)
    if step == 0.0:
        return 0.0
    entry, parts = encode(weights, Scheme("entropy", step=step))
    parameter.data = values(parts, entry)
    try:
        return divergence(exact, _predict(tagger, batches)) / step**2
    finally:
        parameter.data = weights

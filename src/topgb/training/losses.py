"""The training losses, defined on probabilities as in the 2018 system."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from topgb.evaluation.metrics import LOSS_EPSILON, cross_entropy
from topgb.models import Tagger

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# 2018: SoftmaxLoss's epsilon (written 10e-8 there). A video's labels count as summing to at least this.
LEAST_LABEL_SUM = 1e-7


def mixed_labels(labels: torch.Tensor | None, teacher: torch.Tensor, weight: float) -> torch.Tensor:
    """`weight` · teacher's probabilities + (1 - `weight`) · labels, float32 [B, V]; weight 1 needs no labels.

    Cross entropy is linear in its target. With these targets it therefore equals 2018's `MixedCrossEntropyLoss`:
    `weight` (`lambda_factor`) · cross entropy with the teacher + (1 - `weight`) · cross entropy with the labels.
    """
    soft = teacher.float()
    if weight == 1.0:
        return soft
    assert labels is not None, "labels are read wherever the weight leaves them a share"
    return torch.lerp(labels.float(), soft, weight)


def weighted_cross_entropy(weights: torch.Tensor) -> Loss:
    """Cross entropy in which each pair counts by `weights` [B, V]: summed over classes, mean over videos.

    A pair of weight 0 has no gradient at all. With weights of 1 it is `cross_entropy`.
    """

    def loss(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        chosen = torch.where(labels, probabilities, 1.0 - probabilities)
        return -((chosen + LOSS_EPSILON).log() * weights).sum(1).mean()

    return _zero_without_videos(loss)


def hinge(probabilities: torch.Tensor, labels: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Σ max(0, margin - y · p) over classes, y = 1 for a label and -1 for the rest, mean over videos.

    Takes probabilities float32 [B, V] and labels bool [B, V] (2018: `HingeLoss`).
    """
    signs = labels.float() * 2.0 - 1.0
    # At exactly 0 relu has gradient 0, as tf.maximum has; clamp_min has gradient 1 there.
    return F.relu(margin - signs * probabilities).sum(1).mean()


def softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-Σ y · log softmax(p) over classes, y a video's labels scaled to sum to 1, mean over videos.

    Takes probabilities float32 [B, V] and labels bool [B, V]. The softmax is over the probabilities themselves, as in
    2018 (`SoftmaxLoss`). A video without labels counts 0.
    """
    share = labels.float() / labels.float().sum(1, keepdim=True).clamp_min(LEAST_LABEL_SUM)
    return -(share * F.log_softmax(probabilities, dim=1)).sum(1).mean()


@dataclass(frozen=True)
class Outcome:
    """A batch's loss against its target and the extra loss to add (scalars), and its probabilities float [B, V]."""

    loss: torch.Tensor
    extra: torch.Tensor
    probabilities: torch.Tensor


def outcome(
    tagger: Tagger,
    forward: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    loss: Loss,
    features: torch.Tensor,
    num_frames: torch.Tensor,
    target: torch.Tensor,
) -> Outcome:
    """The losses that training minimises, for stored features [B, T, D] and their target [B, V].

    `forward` is the tagger, or its wrapper on a device. The extra loss is the L2 penalty plus the loss of a mixture's
    members.
    """
    probabilities = forward(*tagger.frontend(features, num_frames))
    found = loss(probabilities.float(), target)
    extra = tagger.regularization()
    members = tagger.distillation_loss(target, loss)
    return Outcome(found, extra if members is None else extra + members, probabilities)


def _zero_without_videos(loss: Loss) -> Loss:
    """`loss` (a mean over videos), but 0 instead of NaN for a batch without videos."""

    def defined(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # The empty sum keeps every parameter in the graph, so that each gets a gradient of zeros.
        return loss(probabilities, labels) if len(probabilities) else probabilities.sum()

    return defined


# The recipe's `training.loss` (2018: `label_loss`).
LOSSES: dict[str, Loss] = {
    "cross_entropy": _zero_without_videos(cross_entropy),
    "hinge": _zero_without_videos(hinge),
    "softmax": _zero_without_videos(softmax),
}

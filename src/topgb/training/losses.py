"""The losses a model can be trained with, as the 2018 system defines them on probabilities."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from topgb.evaluation.metrics import cross_entropy
from topgb.models import Tagger

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# 2018: SoftmaxLoss's epsilon (written 10e-8 there), the least that a video's labels are taken to sum to.
LEAST_LABEL_SUM = 1e-7


def mixed_labels(labels: torch.Tensor | None, teacher: torch.Tensor, weight: float) -> torch.Tensor:
    """float32 [B, V]: `weight` · teacher's probabilities + (1 - `weight`) · labels; at weight 1 no labels are needed.

    As cross entropy is linear in what it compares with, its value for these is 2018's `MixedCrossEntropyLoss`:
    `weight` (`lambda_factor`) of the one with the teacher, the rest of the one with the labels.
    """
    soft = teacher.float()
    if weight == 1.0:
        return soft
    assert labels is not None, "labels are read wherever the weight leaves them a share"
    return torch.lerp(labels.float(), soft, weight)


def hinge(probabilities: torch.Tensor, labels: torch.Tensor, margin: float = 1.0) -> torch.Tensor:
    """Σ max(0, margin - y · p) over classes, y = 1 for a label and -1 for the rest, mean over videos.

    Of probabilities float32 [B, V] and labels bool [B, V] (2018: `HingeLoss`).
    """
    signs = labels.float() * 2.0 - 1.0
    # Not clamp_min, whose gradient at exactly 0 is 1; tf.maximum's there is 0, and so is relu's.
    return F.relu(margin - signs * probabilities).sum(1).mean()


def softmax(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """-Σ y · log softmax(p) over classes, y a video's labels scaled to sum to 1, mean over videos.

    Of probabilities float32 [B, V] and labels bool [B, V]; the softmax is over the probabilities themselves, as in 2018
    (`SoftmaxLoss`). A video without labels counts 0.
    """
    share = labels.float() / labels.float().sum(1, keepdim=True).clamp_min(LEAST_LABEL_SUM)
    return -(share * F.log_softmax(probabilities, dim=1)).sum(1).mean()


@dataclass(frozen=True)
class Outcome:
    """Of some videos: the loss against their target, what is added to it (scalars), and probabilities [B, V]."""

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
    """What training follows the gradient of, for stored features [B, T, D] and their target [B, V].

    `forward` is the tagger, or what wraps it on a device. The extra is the L2 penalty, and what a mixture's members
    learn.
    """
    probabilities = forward(*tagger.frontend(features, num_frames))
    found = loss(probabilities.float(), target)
    extra = tagger.regularization()
    members = tagger.distillation_loss(target, loss)
    return Outcome(found, extra if members is None else extra + members, probabilities)


def _zero_without_videos(loss: Loss) -> Loss:
    """`loss` (a mean over videos), and 0 for a batch without videos, whose mean is not a number."""

    def defined(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        # The empty sum keeps every parameter in the graph: all of them get a gradient, of zeros.
        return loss(probabilities, labels) if len(probabilities) else probabilities.sum()

    return defined


# The recipe's `training.loss` (2018: `label_loss`).
LOSSES: dict[str, Loss] = {
    "cross_entropy": _zero_without_videos(cross_entropy),
    "hinge": _zero_without_videos(hinge),
    "softmax": _zero_without_videos(softmax),
}

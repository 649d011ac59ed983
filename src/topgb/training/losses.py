"""The losses a model can be trained with, as the 2018 system defines them on probabilities."""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from topgb.evaluation.metrics import LOSS_EPSILON, cross_entropy

# 2018: SoftmaxLoss's epsilon (written 10e-8 there), the least that a video's labels are taken to sum to.
LEAST_LABEL_SUM = 1e-7


def mixed_cross_entropy(
    probabilities: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, weight: float
) -> torch.Tensor:
    """`weight` · cross entropy with a teacher's probabilities + (1 - `weight`) · cross entropy with the labels.

    Of probabilities float32 [B, V], labels bool [B, V] and teacher float [B, V]; summed over classes, mean over videos
    (2018: `MixedCrossEntropyLoss`, its weight `lambda_factor`).
    """
    # Cross entropy is linear in what it compares with.
    target = weight * teacher.float() + (1.0 - weight) * labels.float()
    hit, miss = (probabilities + LOSS_EPSILON).log(), (1.0 - probabilities + LOSS_EPSILON).log()
    return -(target * hit + (1.0 - target) * miss).sum(1).mean()


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


# The recipe's `training.loss` (2018: `label_loss`).
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "softmax": softmax,
}

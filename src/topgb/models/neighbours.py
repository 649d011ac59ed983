"""A nearest-neighbour classifier: a video gets the classes of the most similar stored videos."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.models.batchnorm import BatchNorm
from topgb.models.mlp import ACTIVATIONS
from topgb.models.options import Options as BaseOptions
from topgb.models.registry import head


@head("neighbours")
class Neighbours(nn.Module):
    """p(class) = Σ of the shares of the nearest stored videos that have the class: float32 [B, V].

    Centred hidden vectors are compared by their cosine, and shares are the softmax of cosine / temperature over the
    nearest videos (Cover and Hart 1967; as in Vinyals et al. 2016, "Matching Networks", but not trained).
    `topgb.combining.remember.remember` makes this head from a trained model and records; 2018 had no such model.
    """

    trained = False

    class Options(BaseOptions):
        """The head stores `videos` videos with `labels` labels in all, at most `most_labels` per video.

        The `neighbours` nearest videos count; a lower `temperature` gives the nearest of them a larger share. With
        `width`, vectors first go through the hidden layer of an `mlp` head, with its `activation`.
        """

        videos: int = Field(ge=1)
        labels: int = Field(ge=1)
        most_labels: int = Field(ge=1)
        neighbours: int = Field(50, ge=1)
        temperature: float = Field(0.06, gt=0.0)
        width: int | None = Field(None, ge=1)
        activation: Literal["relu", "silu"] = "silu"

    centre: torch.Tensor
    label_bounds: torch.Tensor
    label_classes: torch.Tensor

    def __init__(self, in_features: int, classes: int, options: Options):
        super().__init__()
        self.classes, self.most_labels = classes, min(options.most_labels, options.labels)
        self.neighbours, self.temperature = min(options.neighbours, options.videos), options.temperature
        width = options.width or in_features
        if options.width is not None:
            self.hidden = nn.Linear(in_features, options.width, bias=False)
            self.norm = BatchNorm(options.width)
            self.activation = ACTIVATIONS[options.activation]
        self.keys = nn.Linear(width, options.videos, bias=False)
        self.register_buffer("centre", torch.zeros(width))
        # Video v has the labels label_classes[label_bounds[v] : label_bounds[v + 1]].
        self.register_buffer("label_bounds", torch.zeros(options.videos + 1, dtype=torch.int32))
        self.register_buffer("label_classes", torch.zeros(options.labels, dtype=torch.int32))

    def hidden_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        """The vectors to compare, float [B, width], before the mean is subtracted."""
        return self.activation(self.norm(self.hidden(vectors))) if hasattr(self, "hidden") else vectors

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        alike = self.keys(F.normalize(self.hidden_vectors(vectors) - self.centre, dim=1)).float()
        cosine, videos = alike.topk(self.neighbours, dim=1)
        shares = (cosine / self.temperature).softmax(dim=1)
        first, last = self.label_bounds[videos].long(), self.label_bounds[videos + 1].long()
        places = first[:, :, None] + torch.arange(self.most_labels, device=vectors.device)
        # An untrusted file may hold any number: clamp, so that no index leaves the tensors.
        classes = self.label_classes[places.clamp(0, len(self.label_classes) - 1)].long().clamp(0, self.classes - 1)
        counted = shares[:, :, None] * (places < last[:, :, None])
        # An exported graph would take len() for a constant.
        nothing = alike.new_zeros(alike.shape[0], self.classes)
        return nothing.scatter_add(1, classes.flatten(1), counted.flatten(1)).clamp_max(1.0)

    def regularization(self) -> torch.Tensor:
        return torch.zeros((), device=self.keys.weight.device)

    def start_at(self, frequencies: torch.Tensor) -> None:
        """Do nothing: the stored videos are all that this head knows."""

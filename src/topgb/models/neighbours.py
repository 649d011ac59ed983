"""A classifier that remembers: a video's classes are those of the stored videos that are most alike."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from topgb.models.batchnorm import BatchNorm
from topgb.models.options import Options as BaseOptions
from topgb.models.registry import head


@head("neighbours")
class Neighbours(nn.Module):
    """p(class) = Σ share of those of the nearest stored videos that have it: float32 [B, V].

    Hidden vectors, less their mean, are compared by their cosine; shares are the softmax of cosine / temperature (Cover
    and Hart 1967; as in Vinyals et al. 2016, "Matching Networks", but not trained). It stands on no 2018 model, and is
    made of a trained model and records by `topgb.combining.remember.remember`.
    """

    trained = False

    class Options(BaseOptions):
        """How many `videos` are stored, with how many `labels` together and at most `most_labels` each.

        `neighbours` and `temperature` say how many count and how much the nearest more than the others. With `width`
        vectors first go through the hidden layer of an `mlp` head, with its `activation`.
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
            self.activation = {"relu": nn.ReLU, "silu": nn.SiLU}[options.activation]()
        self.keys = nn.Linear(width, options.videos, bias=False)
        self.register_buffer("centre", torch.zeros(width))
        # Video v has the labels label_classes[label_bounds[v] : label_bounds[v + 1]].
        self.register_buffer("label_bounds", torch.zeros(options.videos + 1, dtype=torch.int32))
        self.register_buffer("label_classes", torch.zeros(options.labels, dtype=torch.int32))

    def hidden_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        """float [B, width]: what of a video is compared, before the mean is taken off."""
        return self.activation(self.norm(self.hidden(vectors))) if hasattr(self, "hidden") else vectors

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        alike = self.keys(F.normalize(self.hidden_vectors(vectors) - self.centre, dim=1)).float()
        cosine, videos = alike.topk(self.neighbours, dim=1)
        shares = (cosine / self.temperature).softmax(dim=1)
        first, last = self.label_bounds[videos].long(), self.label_bounds[videos + 1].long()
        places = first[:, :, None] + torch.arange(self.most_labels, device=vectors.device)
        # A file from a stranger may hold any number: none leads out of the tensors.
        classes = self.label_classes[places.clamp(0, len(self.label_classes) - 1)].long().clamp(0, self.classes - 1)
        counted = shares[:, :, None] * (places < last[:, :, None])
        # Not len(), which an exported graph would take for a constant.
        nothing = alike.new_zeros(alike.shape[0], self.classes)
        return nothing.scatter_add(1, classes.flatten(1), counted.flatten(1)).clamp_max(1.0)

    def regularization(self) -> torch.Tensor:
        return torch.zeros((), device=self.keys.weight.device)

    def start_at(self, frequencies: torch.Tensor) -> None:
        """Nothing starts: what it knows are the stored videos."""

"""`topgb.load` and `topgb.Model`: a model in Python, for a user's own arrays."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from topgb.api.tensor_defaults import own_defaults
from topgb.devices import Resident
from topgb.errors import InputError
from topgb.features import FeatureSpec
from topgb.matmul_library import prefer_faster
from topgb.modelfile import Header, LoadedModel
from topgb.modelfile.best import best_classes, least_probabilities
from topgb.modelfile.given_arrays import Videos, padded, to_stored
from topgb.training.opened import open_model

if TYPE_CHECKING:
    from topgb.tagging.tag import TaggedVideo

# Videos that are predicted at once, as many as a batch of `topgb eval`.
BATCH = 128

Tags = list[tuple[str, float]]


class Model:
    """A model that is ready to tag videos.

    `loaded` is the `LoadedModel` inside, an `nn.Module`, whose other attributes can be read from here too.

    >>> import numpy as np, topgb
    >>> model = topgb.load("model.safetensors")
    >>> frames = np.random.default_rng(0).normal(size=(30, model.features.width))
    >>> len(model.tag(frames, top=3))
    3
    """

    def __init__(self, loaded: LoadedModel):
        self.loaded = loaded

    def __repr__(self) -> str:
        names = ", ".join(f"{feature.name} {feature.size}" for feature in self.features.features)
        members = len(self.header.members)
        kind = f"{members} members" if members > 1 else self.header.members[0].model.to_json()["aggregator"]
        return f"<topgb.Model: {kind}, {self.features.level} features {names}, {self.classes:,} classes>"

    def __getattr__(self, name: str) -> Any:
        if name == "loaded":
            # Unpickling asks before `__init__` has run.
            raise AttributeError(name)
        return getattr(self.loaded, name)

    @property
    def header(self) -> Header:
        """The header of the model file."""
        return self.loaded.header

    @property
    def features(self) -> FeatureSpec:
        """The features that the model takes."""
        return self.header.features

    @property
    def classes(self) -> int:
        """The number of classes, V."""
        return self.header.classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes, if the file has any."""
        names = self.header.class_names
        return None if names is None else tuple(names)

    def predict(self, videos: Any, num_frames: Any = None) -> np.ndarray:
        """Probabilities float32 [V] of one video, or [B, V] of several.

        One video is an array [T, D], or [D] for a single frame, of T frames with all features joined, or a mapping from
        each feature's name to such an array. Several are a list of these, of any lengths, or an array [B, T, D], padded
        where `num_frames`, int [B], says so. uint8 values are bytes as records store them; floats of any dtype are raw
        values, which are encoded with the range that the model was trained with. For video-level features T is 1.

        Warns where values lie outside that range, and where a video has more frames than the model looks at. Raises
        `InputError` where names, shapes or dtypes do not fit, or values are NaN or infinite.
        """
        return self._predict(videos, num_frames)

    def _predict(self, videos: Any, num_frames: Any) -> np.ndarray:
        given = to_stored(videos, self.features, self.loaded.max_frames, num_frames)
        self._warn(given)
        with own_defaults():
            found = [
                self.loaded.predict(*padded(given.stored[first : first + BATCH]))
                for first in range(0, len(given.stored), BATCH)
            ]
        # Most calls are one batch, which need not be copied.
        empty = np.zeros((0, self.classes), np.float32)
        probabilities = found[0] if len(found) == 1 else np.concatenate([empty, *found])
        return probabilities[0] if given.single else probabilities

    @overload
    def tag(self, videos: np.ndarray, top: int | None = 5, threshold: float | str | None = None) -> Tags: ...
    @overload
    def tag(self, videos: Sequence[Any], top: int | None = 5, threshold: float | str | None = None) -> list[Tags]: ...
    def tag(self, videos: Any, top: int | None = 5, threshold: float | str | None = None) -> Tags | list[Tags]:
        """The best classes of one video as [(name, probability), …], best first; for several videos a list of these.

        `videos` is as in `predict`. `top` is how many classes to give at most (None: all), `threshold` the least
        probability, or "model": the file's own for each class (see `topgb.thresholds`). Equal probabilities are in the
        order of class numbers; a class without a name has its number's. Raises `InputError` as `predict` does, and
        where `top` or `threshold` make no sense.
        """
        if top is not None and top < 1:
            raise InputError(f"top={top!r} gives no class; use 1 or more, or None for all")
        least = least_probabilities(self.header, threshold)
        probabilities = self._predict(videos, None)
        tags = [self._tags(row, top, least) for row in np.atleast_2d(probabilities)]
        return tags[0] if probabilities.ndim == 1 else tags

    def tag_video(
        self,
        path: str | os.PathLike[str],
        top: int | None = 5,
        threshold: float | str | None = None,
        timeline: float | None = None,
    ) -> "TaggedVideo":
        """The tags of a video, a sound or a picture: a `topgb.tagging.tag.TaggedVideo`, whose `tags` are best first.

        The model's own extractor makes the features (extra `video`). `top` and `threshold` are as in `tag`; with a
        `timeline` each stretch of that many seconds has tags too. Raises `InputError` where the model does not say
        which extractor made its features, or names one that is not here, and where nothing of the file can be read.
        """
        # Imported here, because most users bring arrays.
        from topgb.tagging.tag import TagOptions, VideoTagger

        with own_defaults():
            return VideoTagger(self.loaded, TagOptions(top, threshold, timeline)).tag(os.fspath(path))

    def _tags(self, probabilities: np.ndarray, top: int | None, least: np.ndarray | None) -> Tags:
        best = best_classes(probabilities, top, least)
        return [(self.header.class_name(index), float(probabilities[index])) for index in best]

    def _warn(self, given: Videos) -> None:
        for note in given.notes(self.features, self.loaded.max_frames):
            # The warnings name the line that called `predict` or `tag`.
            warnings.warn(note, stacklevel=4)


def load(
    path: str | os.PathLike[str],
    device: torch.device | str = "cpu",
    resident: Resident | None = None,
    use_ema: bool | None = None,
) -> Model:
    """Open a model file, its URL, or the folder of a run, for prediction on `device`.

    A URL is `hf://OWNER/NAME/FILE` on the Hugging Face hub, or any address that fsspec reaches (`https://`, `s3://`);
    the file is downloaded once, into a cache.

    `use_ema` chooses a run's EMA weights or its raw ones; None means EMA weights if the run keeps them. `resident` says
    what the large matrices of linear layers take in memory: `packed` one byte per weight (matrices stored as floats
    stay floats), `half` two bytes, bfloat16, `full` four bytes, float32. None means `packed` on a CPU, where it is
    fastest, and `full` elsewhere.

    Raises `InputError` in one sentence where the file is missing, truncated, malformed, of a newer version, or holds
    values that are not finite, `TopgbError` where it cannot be downloaded.

    >>> import topgb
    >>> topgb.load("model.safetensors").classes
    12
    """
    with own_defaults():
        if torch.device(device).type == "cpu":
            prefer_faster()
        return Model(open_model(Path(path), torch.device(device), use_ema, resident))

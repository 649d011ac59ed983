"""Calls that make one model file of several, or of one and records: `average`, `ensemble`, `remember`, `rerank`."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    check_least,
    to_path,
    to_paths,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.api.results import ModelFile, model_file
from topgb.api.tensor_defaults import own_defaults
from topgb.errors import DamagedRecordError, InputError, option
from topgb.results import Result, Table

if TYPE_CHECKING:
    from topgb.combining.weights import FittedWeights
    from topgb.evaluation.metrics import Scores
    from topgb.modelfile import StoredModel
    from topgb.records.on_damaged import OnDamaged


def average(models: Sequence[PathLike], out: PathLike, *, force: bool = False) -> ModelFile:
    """Average the weights of models of one shape, batch-norm statistics included (`topgb model average`).

    In 2018 that was `weights_average.py`. The models may be stored in any encoding; the mean is stored as float32.
    Raises `InputError` naming the difference where they differ in anything that shapes a prediction, and if `out`
    exists and `force` is off.

    >>> topgb.average(["a.safetensors", "b.safetensors"], "mean.safetensors").members
    1
    """
    from topgb.combining.average import average as average_files
    from topgb.training.opened import open_stored

    path = to_path(out)
    with own_defaults():
        return model_file(path, average_files([open_stored(model) for model in to_paths(models)], path, force))


@dataclass(frozen=True, repr=False)
class Ensemble(Table):
    """A model file of several; other calls take it for a path. The table has a row for each model.

    path     where it is
    bytes    its size
    members  the number of models that are mixed in it
    models   the paths of the parents
    weights  the share of each
    fitted   the figures of fitted shares; None where they were given
    damaged  errors of the records that were left out
    """

    path: Path
    bytes: int
    members: int
    models: list[Path]
    weights: list[float]
    fitted: "FittedWeights | None"
    damaged: list[DamagedRecordError]

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def to_dict(self) -> dict[str, Any]:
        """`models`, `weights` and `bytes`, and the figures of fitted shares."""
        value = {"models": list(map(str, self.models)), "weights": self.weights, "bytes": self.bytes}
        return value if self.fitted is None else value | self.fitted.to_json()

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`model` and `weight`, and each model's `gap` where shares were fitted."""
        gaps = {} if self.fitted is None else {"gap": list(self.fitted.gaps)}
        return {"model": list(map(str, self.models)), "weight": self.weights, **gaps}


@unpacking
def ensemble(
    models: Sequence[PathLike],
    out: PathLike,
    *,
    weights: Sequence[float] | None = None,
    fit_weights: Data | None = None,
    seed: int = 0,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Ensemble:
    """Put models into one file, whose prediction is their weighted mean (`topgb model ensemble`).

    In 2018 that was `graph_ensemble.py`. The models may differ in anything but features and classes; tensors keep their
    encodings. `weights` are shares that sum to 1 (None: equal ones); `fit_weights` are labelled records to find them
    on, not those that you report on, and `seed` divides the videos to check them. A model of share 0 is left out.

    Raises `InputError` where models or weights do not fit, and if `out` exists and `force` is off.

    >>> both = topgb.ensemble(["run", "a.safetensors"], "both.safetensors", weights=[0.75, 0.25])
    >>> both.weights, both.members
    ([0.75, 0.25], 2)
    """
    from topgb.combining.ensemble import checked_weights
    from topgb.combining.ensemble import ensemble as ensemble_files
    from topgb.files import refuse_existing
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(seed=(seed, 0))
    if weights is not None and fit_weights is not None:
        raise InputError(
            f"{option('weights')} gives the shares and {option('fit_weights')} finds them; leave out one of them"
        )
    paths, path = to_paths(models), to_path(out)
    stored = [open_stored(model) for model in paths]
    shares, fitted = weights, None
    damaged: list[DamagedRecordError] = []
    if fit_weights is not None:
        refuse_existing(path, force, "a model")
        fitted, damaged = _fit(stored, fit_weights, _Fitting(device, on_damaged, seed, progress))
        shares = fitted.weights.tolist()
    header = ensemble_files(stored, shares, path, force, None if fitted is None else fitted.to_json())
    shares = checked_weights(shares or [1 / len(stored)] * len(stored), len(stored))
    return Ensemble(path, path.stat().st_size, len(header.members), paths, shares, fitted, damaged)


@dataclass(frozen=True)
class _Fitting:
    """How shares are fitted: the options of `ensemble` for that."""

    device: str
    on_damaged: "OnDamaged"
    seed: int
    progress: bool


def _fit(models: "list[StoredModel]", data: Data, how: _Fitting) -> "tuple[FittedWeights, list[DamagedRecordError]]":
    from topgb.combining.parents import open_parents
    from topgb.combining.weights import fit_models
    from topgb.devices import choose_device, keep_freed_memory
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.modelfile.loaded import assemble_stored

    keep_freed_memory()
    chosen = choose_device(how.device)
    parents = open_parents(models, "make an ensemble")
    shown = to_progress(how.progress)
    dataset = open_for(parents, to_pattern(data), how.on_damaged, progress=shown)
    loaded = (assemble_stored(parent).to(chosen) for parent in parents)
    fitted = fit_models(loaded, dataset, chosen, how.seed, shown)
    warn_of_videos(dataset, stacklevel=5)
    return fitted, dataset.damaged


@unpacking
def remember(
    model: PathLike,
    out: PathLike,
    *,
    data: Data,
    neighbours: int = 50,
    temperature: float = 0.06,
    on_damaged: "OnDamaged" = "stop",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> ModelFile:
    """Make a model that gives a video the labels of the most alike records of `data` (`topgb model remember`).

    Videos are alike by what the model's hidden layer sees. The `neighbours` most alike ones count, weighted by
    exp(similarity ÷ `temperature`). Mixed into an ensemble it knows what the others have forgotten. Raises `InputError`
    if the model has several members, a record has no labels, or `out` exists and `force` is off.

    >>> topgb.remember("run", "memory.safetensors", data="records/train*.tfrecord", progress=False).members
    1
    """
    from topgb.combining.remember import NeighbourOptions
    from topgb.combining.remember import remember as write_memory
    from topgb.devices import keep_freed_memory
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(neighbours=(neighbours, 1))
    if not temperature > 0:
        raise InputError(f"{option('temperature', temperature)} is not above 0")
    keep_freed_memory()
    stored, path, kept = open_stored(to_path(model)), to_path(out), NeighbourOptions(neighbours, temperature)
    header = write_memory(stored, to_pattern(data), path, kept, force, on_damaged, to_progress(progress))
    return model_file(path, header)


@dataclass(frozen=True, repr=False)
class Reranked(Result):
    """A model file with a second stage; other calls take it for a path.

    path    where it is
    bytes   its size
    before  scores without the second stage, on a tenth of the videos, which it was not shown for that
    after   scores with it, on the same videos
    """

    path: Path
    bytes: int
    before: "Scores"
    after: "Scores"

    def __fspath__(self) -> str:
        return os.fspath(self.path)


@unpacking
def rerank(
    model: PathLike,
    out: PathLike,
    *,
    data: Data,
    scores: PathLike | Sequence[PathLike],
    candidates: int | None = None,
    epochs: int = 8,
    seed: int = 0,
    on_damaged: "OnDamaged" = "stop",
    force: bool = False,
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> Reranked:
    """Add a second stage that judges each video's best classes anew, together (`topgb model rerank`).

    It learns from labelled records `data` and from `scores`: folders of `distill` that know these videos, by models
    that were trained without them. `candidates` is the number of a video's best classes that it judges: by default
    30, or all if there are fewer. `on_damaged` "skip" leaves damaged records out. Raises `InputError` if a video has no
    labels or no scores, the classes differ or are fewer than `candidates`, or `out` exists and `force` is off.

    >>> stage = {"data": "many/train*.tfrecord", "scores": ["many/scores"], "candidates": 20, "epochs": 1}
    >>> topgb.rerank("many/model.safetensors", "reranked.safetensors", **stage, progress=False).after.videos
    4
    """
    from topgb.combining.rerank import RerankTraining
    from topgb.combining.rerank import rerank as add_second_stage
    from topgb.devices import keep_freed_memory
    from topgb.models.reranker import RerankerOptions
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_stored

    check_choices(on_damaged=(on_damaged, OnDamaged))
    check_least(candidates=(candidates, 1), epochs=(epochs, 1), seed=(seed, 0))
    keep_freed_memory()
    folders = [to_path(scores)] if isinstance(scores, str | os.PathLike) else to_paths(scores)
    sizes = None if candidates is None else RerankerOptions(candidates=candidates)
    settings, path = RerankTraining(sizes, epochs, seed=seed, on_damaged=on_damaged), to_path(out)
    stored, shown = open_stored(to_path(model)), to_progress(progress)
    gain = add_second_stage(stored, to_pattern(data), folders, path, settings, force, shown)
    return Reranked(path, path.stat().st_size, gain.before, gain.after)

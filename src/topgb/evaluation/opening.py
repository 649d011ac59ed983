"""The one way to open records for a model, for several at once, or for a recipe."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from topgb.errors import TopgbWarning
from topgb.features import MOST_VALUES, FeatureSpec
from topgb.modelfile.header import Header
from topgb.progress import SILENT, Progress
from topgb.records.dataset import Dataset, open_dataset
from topgb.records.description import check_descriptions, find_descriptions
from topgb.records.disguised import check_bytes
from topgb.records.labels import LABELS, Targets
from topgb.records.layout import LabelUse
from topgb.records.on_damaged import OnDamaged

if TYPE_CHECKING:
    from topgb.extractor_identity import Identity
    from topgb.records.folders import Part
    from topgb.records.repeated import Repeated
    from topgb.records.segment_dataset import SegmentCut


class HasHeader(Protocol):
    """A model, loaded or stored."""

    @property
    def header(self) -> Header: ...


@dataclass(frozen=True)
class RecordNeeds:
    """The properties that records must have for a model that trains on them or predicts them.

    spec         the features, with the value ranges of bytes
    classes      the number of classes
    max_frames   the model sees at most this many frames of a video
    class_names  the names of the classes, if they are known
    extractor    the extractor of the features, None if it is not known; {}, the default, if any will do
    """

    spec: FeatureSpec
    classes: int
    max_frames: int
    class_names: Sequence[str] | None = None
    extractor: "Identity | None" = field(default_factory=dict)


def open_for(
    models: Header | HasHeader | Sequence[Header | HasHeader],
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
    with_labels: LabelUse = True,
    every_frame: bool = False,
    part: "Part | None" = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Open the records of `pattern` for every one of `models`; the order of the models does not matter.

    If the folder holds a part to train on and a part to validate on, only `part` is read, and `progress` says so. By
    default that is the part to validate on if labels are used, to score, and both if they are not.

    Videos are read up to the largest `max_frames` of the models, or whole with `every_frame`. The models must take the
    same features and classes. A description beside the records (`dataset.yaml`) must give the value ranges and the
    extractor that the models were trained with and, if labels are used, the models' class names. Where only the records
    or only the models say which extractor that is, a `TopgbWarning` says so.

    Raises `InputError` if the description does not match, and as `open_dataset` does.
    """
    needs = _needs_of(models, every_frame)
    part = part or ("validate" if with_labels is True else "all")
    return open_needed(needs, _files(pattern, part, progress), on_damaged, Targets(with_labels), progress)


def open_segments_for(
    model: Header | HasHeader,
    pattern: str | Sequence[str],
    segments: "SegmentCut",
    on_damaged: OnDamaged,
    part: "Part",
    progress: Progress = SILENT,
) -> Dataset:
    """`open_for` one model, with these segments of the videos for rows: a `SegmentDataset`."""
    needs = _needs_of(model, every_frame=False)
    found = _files(pattern, part, progress)
    return open_needed(needs, found, on_damaged, Targets(False), progress, segments=segments)


def _needs_of(models: Header | HasHeader | Sequence[Header | HasHeader], every_frame: bool) -> RecordNeeds:
    several = models if isinstance(models, Sequence) else [models]
    headers = [model if isinstance(model, Header) else model.header for model in several]
    return RecordNeeds(
        spec=headers[0].features,
        classes=headers[0].classes,
        max_frames=MOST_VALUES if every_frame else max(header.max_frames for header in headers),
        class_names=next((header.class_names for header in headers if header.class_names is not None), None),
        extractor=next((header.extractor for header in headers if header.extractor is not None), None),
    )


def _files(pattern: str | Sequence[str], part: "Part", progress: Progress) -> str | Sequence[str]:
    """The files of `part` where `pattern` is a folder, else `pattern`."""
    if not isinstance(pattern, str) or not os.path.isdir(os.path.expanduser(pattern)):
        return pattern
    from topgb.records.folders import part_of

    return part_of(pattern, part, "scoring" if part == "validate" else "learning", progress)


def open_needed(
    needs: RecordNeeds,
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
    targets: Targets = LABELS,
    progress: Progress = SILENT,
    tell: Callable[[str], None] | None = None,
    segments: "SegmentCut | None" = None,
) -> Dataset:
    """Open the records of `pattern`, which must fulfil `needs`; batches hold `targets`.

    With `segments` the rows are these segments of the videos.

    `progress` shows the search for the records of a large data set.

    `tell` gets a sentence where the extractor of the features cannot be checked; by default it becomes a warning.

    Raises as `open_for` does, and `InputError` if a feature of bytes holds text or the bytes of floats.
    """
    # Class names matter only with labels, which are class numbers.
    described = find_descriptions(pattern)
    check_descriptions(described, needs.spec, needs.class_names if targets.labels is True else None)
    if needs.extractor or any(found is not None and found.extractor is not None for found in described):
        # Imported here, because most features come from elsewhere.
        from topgb.evaluation.same_extractor import check_extractor

        check_extractor(needs.extractor, described, pattern, tell or _warn)
    if segments is not None:
        # Imported here, because most work is on whole videos.
        from topgb.records.segment_dataset import open_segments

        dataset: Dataset = open_segments(pattern, needs.spec, needs.classes, segments, on_damaged, targets, progress)
    else:
        dataset = open_dataset(pattern, needs.spec, needs.classes, needs.max_frames, on_damaged, targets, progress)
    check_bytes(dataset)
    return dataset


def warn_of_videos(dataset: Dataset, stacklevel: int = 4) -> "Repeated | None":
    """Warn of videos that are longer than what the model looks at, and of some that occur more than once.

    To be called when the records have been read. `stacklevel` is that of the line that called the public function, as
    `warnings.warn` counts from here. Returns the repeated videos, if there are any.
    """
    cut = dataset.cut.sentence(dataset.num_records)
    if cut is not None:
        sentence = f"{cut}; a model trained with a greater model.max_frames looks at more"
        warnings.warn(sentence, TopgbWarning, stacklevel)
    repeated = dataset.repeated()
    if repeated is not None:
        sentence = f"{repeated.sentence()}, and counts each time; leave the other out"
        warnings.warn(sentence, TopgbWarning, stacklevel)
    return repeated


def _warn(sentence: str) -> None:
    warnings.warn(sentence, TopgbWarning, stacklevel=5)

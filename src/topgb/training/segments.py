"""A recipe's segments: the rows to train and to validate on, and the rated classes that the model file names."""

from dataclasses import replace

from topgb.errors import InputError
from topgb.records.dataset import Dataset
from topgb.records.labels import TeacherSource
from topgb.records.segment_dataset import SegmentCut, SegmentDataset
from topgb.training.recipe import Recipe

# The key of a run's settings.
RATED = "rated_classes"


def training_cut(recipe: Recipe, teacher: TeacherSource | None) -> SegmentCut:
    """The segments to train on. Raises `InputError` where the recipe's other sections do not go with segments."""
    assert recipe.segments is not None
    options, most = recipe.training, recipe.model_section().max_frames
    cut = SegmentCut(**recipe.segments.model_dump())
    if teacher is not None:
        raise InputError("a teacher's scores are those of whole videos; leave out the teacher, or 'segments'")
    if cut.rows == "rated" and options.loss != "cross_entropy":
        raise InputError(f"rated segments are learned by cross entropy; leave out training.loss={options.loss}")
    if options.frames != "all":
        raise InputError(f"segments are looked at whole; set training.frames to all in place of {options.frames}")
    if cut.rows == "every" and (cut.video_labels or cut.mined_negatives):
        raise InputError(
            "'segments.video_labels' and 'segments.mined_negatives' go with rated segments; with rows: every all "
            "labels are those of the video"
        )
    if cut.frames > most:
        raise InputError(
            f"a segment with its context has {cut.frames} frames; set model.max_frames to that, not {most}"
        )
    return cut


def validation_cut(cut: SegmentCut) -> SegmentCut:
    """The rated segments, seen as in training; only their ratings count."""
    return replace(cut, rows="rated", video_labels=0.0, mined_negatives=0)


def rated_classes(data: Dataset) -> list[int] | None:
    """The rated classes for the run's settings; None for videos, and for segments without ratings."""
    if not isinstance(data, SegmentDataset) or data.segment_cut.rows == "every":
        return None
    return data.rated_classes.tolist()

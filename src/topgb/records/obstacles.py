"""Sentences on what keeps recipes from reading records: faults counted over many records, and features left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from topgb.errors import RecordError, option
from topgb.records.disguised import WRITE_FLOATS
from topgb.records.feature_tallies import FeatureSummary, FeatureTally
from topgb.records.framing import Place
from topgb.records.labels import LABELS_APART, WRITE_NUMBERS, is_label_key

_FRAMES_APART = "topgb reads frames from a SequenceExample, a value for each frame in its feature lists"
# Widths that share a smaller factor may do so by chance.
_LEAST_JOINED = 4
_MOST_NAMED = 5


@dataclass
class FaultTally:
    """The number of records with a fault of some kind, and the reason and the place of the first."""

    records: int = 0
    reason: str = ""
    place: str = ""

    def add(self, error: RecordError, place: Place) -> None:
        if not self.records:
            self.reason, self.place = error.reason, str(place)
        self.records += 1


def of_features(features: Mapping[str, FeatureTally], records: int, of_frames: bool) -> Iterator[str]:
    """For each feature of numbers that no recipe can name, a sentence that says why."""
    for name, seen in sorted(features.items()):
        summary = seen.summary(name)
        if summary.text or is_label_key(name):
            continue
        if summary.disguise:
            yield f"{name!r} holds bytes, but {summary.disguise}; {WRITE_FLOATS}"
        elif summary.lists:
            yield (
                f"{name!r} holds several values in a frame; write one value for each, with all bytes of the frame"
                if of_frames
                else f"{name!r} holds several values, like frames inside an Example; {_FRAMES_APART}"
            )
        elif summary.kind == "mixed":
            kinds = " and ".join(sorted(seen.kinds))
            yield f"{name!r} holds values of several kinds ({kinds}); write one kind into all records"
        elif summary.kind not in ("uint8", "float32"):
            continue
        elif not summary.may_be_input:
            yield f"{name!r} cannot be named in a recipe: a name needs printable characters and no dot; rename it"
        elif summary.min_width != summary.max_width:
            yield _unequal(summary, seen.shared_width, of_frames)
        elif summary.records != records:
            yield (
                f"{name!r} is in {summary.records:,} of {records:,} records only; leave the others out, or write it "
                "into them"
            )


def of_teacher(seen: FeatureTally | None, bad: FaultTally, records: int, greatest_label: int | None) -> Iterator[str]:
    """A sentence if the predictions of a teacher inside the records, counted in `seen`, cannot be learned."""
    use = option("teacher", "records")
    if bad.records:
        unusable = f"{bad.records:,} of {records:,} records hold predictions that cannot be used"
        yield f"{unusable}, the first of them in {bad.place}: {bad.reason}"
    elif seen is not None and len(seen.widths) > 1:
        yield (
            f"the records hold from {min(seen.widths):,} to {max(seen.widths):,} predictions of a teacher, and {use} "
            "takes one for each class; write as many into all records"
        )
    elif seen is not None and seen.records < records:
        yield (
            f"{seen.records:,} of {records:,} records hold predictions of a teacher, and {use} takes records that all "
            "hold them; name those alone"
        )
    elif seen is not None and greatest_label is not None and max(seen.widths) <= greatest_label:
        yield (
            f"the records hold {max(seen.widths):,} predictions of a teacher each, and labels up to "
            f"{greatest_label:,}; {use} takes a prediction for each class"
        )


def of_labels(labelled: int, empty: int, records: int) -> Iterator[str]:
    """A sentence if some of the records have a list of labels and others none, or if all of the lists are empty."""
    if labelled and labelled == empty:
        yield (
            "the label lists are all empty, so there is nothing for train to learn from or for eval to score against; "
            f"{WRITE_NUMBERS} of each video"
        )
    elif 0 < labelled < records:
        yield (
            f"{records - labelled:,} of {records:,} records have no labels, and train and eval stop at such a record "
            f"among labelled ones; {LABELS_APART}, or write an empty list of labels for a video of none of the classes"
        )


def of_no_input(features: Mapping[str, FeatureTally]) -> str:
    """The sentence for records without a feature of numbers."""
    found = [seen.summary(name) for name, seen in sorted(features.items())]
    named = ", ".join(f"{summary.name!r} holds {_content(summary)}" for summary in found[:_MOST_NAMED])
    more = ", …" if len(found) > _MOST_NAMED else ""
    return f"no feature can be the input of a model ({named}{more}); write one as a float list, or as bytes"


def _unequal(summary: FeatureSummary, shared_width: int, of_frames: bool) -> str:
    widths = f"{summary.name!r} has from {summary.min_width:,} to {summary.max_width:,} values"
    if summary.min_width and shared_width >= _LEAST_JOINED:
        return f"{widths}, all multiples of {shared_width}, like frames joined into one value; {_FRAMES_APART}"
    where = "frames" if of_frames else "records"
    return f"{widths}, and a recipe names one width; write as many into all {where}, or leave the others out"


def _content(summary: FeatureSummary) -> str:
    if is_label_key(summary.name):
        return "labels"
    if summary.text:
        return "text"
    return "integers" if summary.kind == "int64" else "nothing"

"""The one way by which a command opens records for a model, or for several at once."""

from collections.abc import Sequence
from typing import Protocol

from topgb.features import MOST_VALUES
from topgb.modelfile.header import Header
from topgb.records.damage import OnDamaged
from topgb.records.dataset import Dataset, open_dataset
from topgb.records.description import check_description


class HasHeader(Protocol):
    """A model, loaded or stored."""

    @property
    def header(self) -> Header: ...


def open_for(
    models: Header | HasHeader | Sequence[Header | HasHeader],
    pattern: str | Sequence[str],
    on_damaged: OnDamaged = "stop",
    with_labels: bool = True,
    every_frame: bool = False,
) -> Dataset:
    """The records of `pattern`, read so that every one of `models` can use them, in whatever order these are named.

    Videos are read up to the most frames that any model looks at, with `every_frame` whole. Models that are opened
    together must take the same features and classes. Where a description lies beside the records (`dataset.yaml`), it
    must have the value ranges that the models were trained with and, where labels are used, their class names.

    Raises `InputError` where they are not, and as `open_dataset` does.
    """
    several = models if isinstance(models, Sequence) else [models]
    headers = [model if isinstance(model, Header) else model.header for model in several]
    first = headers[0]
    names = next((header.class_names for header in headers if header.class_names is not None), None)
    # The numbers of classes matter to labels alone.
    check_description(pattern, first.features, names if with_labels else None)
    most_frames = MOST_VALUES if every_frame else max(header.max_frames for header in headers)
    return open_dataset(pattern, first.features, first.classes, most_frames, on_damaged, with_labels)

"""The call `tag`: a person's videos through a model."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import Opening, PathLike, open_given, to_path, to_progress
from topgb.api.tensor_defaults import own_defaults
from topgb.errors import InputError, TopgbWarning
from topgb.results import Table

if TYPE_CHECKING:
    from topgb.api.model import Model
    from topgb.tagging.tag import TaggedVideo, Unreadable


@dataclass(frozen=True, repr=False)
class Tagged(Table):
    """Tagged videos, in the order in which they were named; the table has a row for each tag.

    videos      `topgb.tagging.tag.TaggedVideo`s: path, seconds, tags, timeline, remarks
    unreadable  the files of which nothing could be read, with the reason of each
    """

    videos: "list[TaggedVideo]"
    unreadable: "list[Unreadable]" = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """`videos`: `path`, `seconds`, `tags` (`class`, `name`, `probability`), `timeline` (`start`, `end`, `tags`).

        And `unreadable` (`path`, `reason`), if there are any.
        """
        from topgb.tagging.formats import to_json

        return to_json(self.videos, self.unreadable)

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """`path`, `start`, `end`, `class`, `name`, `probability`: of each stretch of a timeline, else of the video."""
        from topgb.tagging.formats import CSV_HEADER, rows

        listed = [row for video in self.videos for row in rows(video)]
        return {name: [row[place] for row in listed] for place, name in enumerate(CSV_HEADER)}


def tag(
    model: "PathLike | Model",
    videos: PathLike | Sequence[PathLike],
    *,
    top: int | None = 5,
    threshold: float | str | None = None,
    timeline: float | None = None,
    progress: bool = True,
) -> Tagged:
    """Tag videos, sounds or pictures (`topgb tag`); needs the extra `video`.

    `model` is a model file, a run's folder or a `topgb.Model`, trained on records that `topgb extract` wrote. Its own
    extractor makes the features; the best `top` classes (None: all) that reach the `threshold`, a probability or
    "model" for the file's own, are given to each video, and with `timeline` also to each stretch of that many seconds.
    Without a timeline no more of a video is read than the model looks at.

    `videos` are files, or folders for all in them. A file that cannot be read gives a warning, and the others go on.
    Raises `InputError` where the model does not say which extractor made its features, or names one that is not here,
    and where an option makes no sense; `TopgbError` where a package is not installed.

    >>> found = topgb.tag("tagger.safetensors", ["beach.mp4"], timeline=5)  # doctest: +SKIP
    >>> found.videos[0].tags[0].name  # doctest: +SKIP
    'sea'
    """
    from topgb.tagging.named_files import files_of
    from topgb.tagging.tag import TaggedVideo, TagOptions, VideoTagger, tag_each

    files = files_of(_to_names(videos))
    found: list[TaggedVideo] = []
    unreadable: list[Unreadable] = []
    with own_defaults():
        tagger = VideoTagger(open_given(model, Opening()).here, TagOptions(top, threshold, timeline))
        for each in tag_each(tagger, files, to_progress(progress)):
            if isinstance(each, TaggedVideo):
                found.append(each)
            else:
                unreadable.append(each)
                warnings.warn(each.reason, TopgbWarning, stacklevel=2)
    return Tagged(found, unreadable)


def _to_names(videos: PathLike | Sequence[PathLike]) -> list[str]:
    """The paths of one file or several. Raises `InputError` for what is no path, or none at all."""
    given = [videos] if isinstance(videos, str | os.PathLike) else videos
    if not isinstance(given, Sequence) or not given:
        raise InputError(f"{videos!r} names no videos; give a path, or a list of paths")
    return [os.fspath(to_path(one)) for one in given]

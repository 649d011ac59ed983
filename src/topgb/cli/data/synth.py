"""topgb data synth."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Force

if TYPE_CHECKING:
    from topgb.features import FeatureSpec


def synth(
    folder: Annotated[Path, typer.Argument(help="Directory to write shards to.", metavar="FOLDER")],
    videos: Annotated[int, typer.Option(min=1, help="How many records.")] = 1000,
    classes: Annotated[int, typer.Option(min=1, help="How many classes.")] = 100,
    level: Annotated[Literal["video", "frame"], typer.Option(help="Examples or SequenceExamples.")] = "frame",
    features: Annotated[
        str | None, typer.Option(help="NAME:SIZE, comma-separated.  [default: YouTube-8M's of that level]")
    ] = None,
    frames: Annotated[str, typer.Option(help="Fewest and most frames of a video.")] = "20,60",
    videos_per_shard: Annotated[int, typer.Option(min=1, help="Records in a file.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other videos of the same classes.")] = 0,
    noise: Annotated[float, typer.Option(min=0.0, help="0 is easy; around 5 the classes drown.")] = 1.5,
    labelled: Annotated[bool, typer.Option("--labelled/--unlabelled", help="Unlabelled, as a test set is.")] = True,
    segments: Annotated[
        bool, typer.Option("--segments", help="Rate 5 segments of each video, as in the challenge of 2019.")
    ] = False,
    prefix: Annotated[str, typer.Option(help="File names are PREFIX0000.tfrecord and so on.")] = "train",
    force: Force = False,
) -> None:
    """Write a learnable synthetic data set; the same options give the same bytes.

    --force replaces an earlier set of the same prefix whole: shards beyond the new ones are removed.
    """
    from topgb.progress import TerminalProgress, counting
    from topgb.records.synth import RATED_SEGMENTS, SynthOptions, write_synthetic

    written = write_synthetic(
        folder,
        _spec(level, features),
        classes,
        videos,
        SynthOptions(
            videos_per_shard=videos_per_shard,
            frames=_frame_range(frames),
            seed=seed,
            noise=noise,
            labelled=labelled,
            prefix=prefix,
            segments=RATED_SEGMENTS if segments else 0,
        ),
        force=force,
        on_progress=counting(TerminalProgress(), "writing", "videos"),
    )
    terminal.say(f"{len(written)} files in {folder}, {videos:,} videos")


def _spec(level: Literal["video", "frame"], features: str | None) -> "FeatureSpec":
    from topgb.errors import InputError
    from topgb.features import YOUTUBE8M_FRAMES, YOUTUBE8M_VIDEOS, Feature, FeatureSpec

    if features is None:
        return YOUTUBE8M_FRAMES if level == "frame" else YOUTUBE8M_VIDEOS
    parsed = []
    for text in features.split(","):
        name, colon, size = text.strip().partition(":")
        if not name or not colon or not size.isdecimal():
            raise InputError(f"--features {text!r} is not NAME:SIZE, such as rgb:1024")
        parsed.append(Feature(name, int(size), "uint8" if level == "frame" else "float32"))
    return FeatureSpec(level, tuple(parsed))


def _frame_range(text: str) -> tuple[int, int]:
    from topgb.errors import InputError

    few, comma, many = text.partition(",")
    if not comma or not few.strip().isdecimal() or not many.strip().isdecimal():
        raise InputError(f"--frames {text!r} is not FEWEST,MOST, such as 20,60")
    return int(few), int(many)

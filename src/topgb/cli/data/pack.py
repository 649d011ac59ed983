"""topgb data pack."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Force

if TYPE_CHECKING:
    from topgb.packing.pack import Packed


def pack(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a glob in quotes or a file: .npy, .npz, .parquet, .pq, or MediaPipe's .pb.",
            metavar="SOURCE",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write shards, vocabulary.csv and dataset.yaml to.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="Class names by video: a CSV with id and labels, or AudioSet's segments.", metavar="CSV"),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="What separates a video's labels; ',' reads lists too.  [default: ;]", metavar="SIGN"),
    ] = None,
    vocabulary: Annotated[
        Path | None,
        typer.Option(
            help="The classes: a CSV with Index and Name.  [default: those of the labels, most frequent first]",
            metavar="CSV",
        ),
    ] = None,
    store: Annotated[
        Literal["bytes", "float32"] | None,
        typer.Option(help="Floats as bytes or as they are.  [default: bytes for frames, float32 for videos]"),
    ] = None,
    value_ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            help="What bytes 0 to 255 stand for, of every feature or of one.  [default: measured]",
            metavar="LOW,HIGH|NAME:LOW,HIGH",
        ),
    ] = None,
    validate: Annotated[
        float | None,
        typer.Option(help="Share of the videos for validate*.tfrecord, chosen by their ids.", metavar="SHARE"),
    ] = None,
    videos_per_shard: Annotated[int, typer.Option(min=1, help="Records of a file.")] = 1000,
    name: Annotated[str, typer.Option(help="What the feature of .npy files is called.")] = "embedding",
    force: Force = False,
) -> None:
    """Make records of your own features, for train, eval and predict.

    A .npy file is one video, named by its file: [T, D] for frames or [D] for the whole video, floats or uint8. A .npz
    file holds an array a feature. A Parquet table has a row a video: id, labels (if any), and features as lists.
    """
    from topgb.packing.pack import PackOptions
    from topgb.packing.pack import pack as run_pack
    from topgb.progress import TerminalProgress

    # As messages write these two.
    between = None if separator is None else separator.replace("\\t", "\t").replace("\\n", "\n")
    options = PackOptions(store, dict(map(_range, value_ranges or [])), validate, videos_per_shard, name, between)
    packed = run_pack(source, out, labels, vocabulary, options, force, TerminalProgress())
    terminal.say(*_report(out, packed))


def _range(text: str) -> tuple[str | None, tuple[float, float]]:
    from math import isfinite

    from topgb.errors import InputError

    name, colon, ends = text.rpartition(":")
    try:
        low, high = map(float, ends.split(","))
    except ValueError:
        low = high = 0.0
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InputError(f"--range {text!r} is not LOW,HIGH or NAME:LOW,HIGH, such as --range=-2,2; low is below high")
    return (name if colon else None), (low, high)


def _report(out: Path, packed: "Packed") -> list[str]:
    described = packed.description
    lines = [f"{out}: {packed.train + packed.validate:,} videos, {described.spec.level} level"]
    for part, count in (("train", packed.train), ("validate", packed.validate)):
        if count:
            lines.append(f"records   {part}*.tfrecord: {count:,} videos")
    if described.max_frames is not None:
        lines.append(f"frames    up to {described.max_frames:,} a video")
    cut = packed.cut.sentence(packed.train + packed.validate)
    if cut is not None:
        lines.append(f"cut off   {cut}, unless a recipe's model.max_frames is greater")
    for feature in described.spec.features:
        line = f"feature   {feature.name}: {feature.dtype}, width {feature.size}"
        if feature.dtype == "uint8":
            line += f", range {feature.range[0]:.10g} to {feature.range[1]:.10g}"
        cost = packed.quantised.get(feature.name)
        if cost is not None:
            line += f"; {cost.clipped:.3%} of the values clipped, error {cost.error:.2%}"
        lines.append(line)
    if described.vocabulary is None:
        lines.append("labels    none")
    else:
        mean = packed.labels / (packed.train + packed.validate)
        lines.append(f"labels    {described.classes:,} classes in {described.vocabulary}, {mean:.2f} a video")
    if packed.absent:
        lines.append(f"left out  the labels of {packed.absent:,} videos that have no features")
    return lines

"""topgb data pack."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from topgb import terminal
from topgb.cli.arguments import Force, UnlabelledOption, ValidatedShare, ValueRanges, parse_range

if TYPE_CHECKING:
    from topgb.packing.pack import Packed


def pack(
    out: Annotated[Path, typer.Option(help="Directory to write shards, vocabulary.csv and dataset.yaml to.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder, a glob in quotes or a file: .npy, .npz, .h5, .hdf5, .parquet, .pq, or MediaPipe's .pb. "
            "Leave it out with --feature.",
            metavar="SOURCE",
            show_default=False,
        ),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="In place of SOURCE, once for each feature: its name and its folder.", metavar="NAME=DIR"),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Class names by video: a CSV with id (or path) and labels, or AudioSet's segments.", metavar="CSV"
        ),
    ] = None,
    unlabelled: UnlabelledOption = "stop",
    separator: Annotated[
        str | None,
        typer.Option(help="Separator of a video's labels; ',' reads lists too.  [default: ;]", metavar="SIGN"),
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
    value_ranges: ValueRanges = None,
    validate: ValidatedShare = None,
    videos_per_shard: Annotated[int, typer.Option(min=1, help="Records in a file.")] = 1000,
    name: Annotated[str, typer.Option(help="The name of the feature in .npy files.")] = "embedding",
    id_: Annotated[
        Literal["path", "stem"],
        typer.Option("--id", help="A video's id: its path below the folder, without the ending, or the file's name."),
    ] = "path",
    frames: Annotated[
        Literal["equal", "longest"],
        typer.Option(help="Features with unequal numbers of frames: an error, or repeat the frames nearest in time."),
    ] = "equal",
    arrays: Annotated[
        Literal["videos", "features"] | None,
        typer.Option(
            help="Arrays at the top of .h5 files: each a video, or features of one video.  [default: by names]"
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Make records of your own features, for train, eval and predict.

    A .npy file is one video, named by its path below SOURCE: [T, D] for frames or [D] for the whole video, floats or
    uint8. A .npz file has one array per feature; a .h5 file too, or one group or array per video. A Parquet table has
    one row per video: id, labels (if any), and features as lists.
    """
    from topgb.packing.pack import PackOptions, named_source
    from topgb.packing.pack import pack as run_pack
    from topgb.progress import TerminalProgress

    # As messages write these two.
    between = None if separator is None else separator.replace("\\t", "\t").replace("\\n", "\n")
    options = PackOptions(
        store=store,
        ranges=dict(map(parse_range, value_ranges or [])),
        validate=validate,
        videos_per_shard=videos_per_shard,
        name=name,
        separator=between,
        ids=id_,
        frames=frames,
        arrays=arrays,
        unlabelled=unlabelled,
    )
    named = named_source(source, _folders(feature or []))
    packed = run_pack(named, out, labels, vocabulary, options, force, TerminalProgress())
    terminal.say(*_report(out, packed, unlabelled))


def _folders(given: list[str]) -> dict[str, str]:
    from topgb.errors import InputError

    folders: dict[str, str] = {}
    for text in given:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder):
            raise InputError(f"--feature {text!r} is not NAME=DIR, such as --feature visual=clip-embeddings")
        if name in folders:
            raise InputError(f"--feature {name} is given twice; give each feature a name of its own")
        folders[name] = folder
    return folders


def _report(out: Path, packed: "Packed", unlabelled: str) -> list[str]:
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
    if packed.unlabelled:
        done = "left out" if unlabelled == "skip" else "kept as showing no class"
        lines.append(f"no row    {packed.unlabelled:,} videos without labels were {done}")
    if packed.absent:
        lines.append(f"left out  the labels of {packed.absent:,} videos that have no features")
    return lines

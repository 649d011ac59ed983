"""topgb eval."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from topgb import terminal
from topgb.cli.arguments import (
    Address,
    Data,
    Device,
    EngineOption,
    Force,
    Json,
    ModelOrRun,
    OnDamagedOption,
    PrecisionOption,
    ResidentOption,
    UseEma,
    Vocabulary,
    multiply_fast,
    named,
    report_damage,
    said,
)

if TYPE_CHECKING:
    from topgb.evaluation.bootstrap import Interval
    from topgb.evaluation.score import Rounds


# The greatest seed that a recipe may have.
MOST_SEED = 2**31 - 1


def evaluate(
    model: ModelOrRun,
    data: Data,
    use_ema: UseEma = None,
    json: Json = False,
    per_class: Annotated[Path | None, typer.Option(help="Also write a CSV with every class's figures.")] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="For precision, recall and F1: the least probability of a class, or model for the file's own.  "
            "[default: model if it has some, else 0.5]",
            metavar="T|model",
        ),
    ] = None,
    interval: Annotated[bool, typer.Option("--interval", help="Add 95% bootstrap intervals over videos.")] = False,
    vocabulary: Vocabulary = None,
    force: Force = False,
    frames: Annotated[
        str, typer.Option(help="Frames of a video to look at: all, random:N, sequence:N, sample_all or shuffle.")
    ] = "all",
    rounds: Annotated[
        int, typer.Option(min=1, help="With sampled frames: score this many draws, print mean and deviation.")
    ] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST_SEED, help="With sampled frames: another seed, other draws.")
    ] = None,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    resident: ResidentOption = None,
    engine: EngineOption = "local",
    address: Address = None,
    precision: PrecisionOption = "float32",
    segments: Annotated[
        bool, typer.Option("--segments", help="Score rated segments of the videos: MAP@K, as in 2019.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option(min=1, help="With --segments: the best K of each class count.  [default: 100000]", metavar="K"),
    ] = None,
) -> None:
    """Score a model on labelled records: GAP@20, Hit@1, PERR, MAP, loss, F1.

    Every frame is looked at once, and the figures are always the same; --frames samples them as the 2018 system did.
    """
    if segments or k is not None:
        _evaluate_segments(
            model, data, json, use_ema=use_ema, per_class=per_class, threshold=threshold, interval=interval,
            vocabulary=vocabulary, force=force, frames=frames, rounds=rounds, seed=seed, on_damaged=on_damaged,
            device=device, resident=resident, engine=engine, address=address, precision=precision,
            segments=segments, k=k,
        )  # fmt: skip
        return
    from topgb.errors import InputError
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.evaluation.predictions import FrameDraw
    from topgb.evaluation.score import Scoring, intervals_of, score, to_json, write_per_class
    from topgb.files import refuse_existing
    from topgb.progress import TerminalProgress
    from topgb.records.sampling import parse_sampling
    from topgb.training.opened import open_for_engine

    sampling = parse_sampling(frames)
    if sampling.mode == "all" and (rounds > 1 or seed is not None):
        raise InputError("--rounds and --seed go with sampled frames; add --frames random:300, or leave them out")
    if per_class is not None and rounds > 1:
        raise InputError("--per-class writes the figures of one round; leave out --rounds")
    if interval and rounds > 1:
        raise InputError("--interval is one of one round; leave out --rounds")
    if vocabulary is not None and per_class is None:
        raise InputError("--vocabulary names classes in the CSV of --per-class; give that too")
    if per_class is not None:
        refuse_existing(per_class, force)
    multiply_fast(device)
    opened = open_for_engine(model, use_ema, device, resident, engine, address, precision)
    header = named(opened.here.header, vocabulary)
    least, at = header.thresholds_for(threshold)
    progress = TerminalProgress()
    dataset = open_for(header, data, on_damaged, progress=progress)
    how = Scoring(FrameDraw(sampling, seed or 0), rounds, least, interval)
    found = score(opened.model, dataset, opened.device, how, progress, opened.engine)
    intervals = intervals_of(found.metrics, progress) if interval else {}
    report_damage(dataset.damaged)
    repeated = warn_of_videos(dataset)
    if json:
        terminal.show_json(to_json(found, at, intervals, repeated) | said(opened.here.precision))
    else:
        _print(found, at, intervals)
    if per_class is not None:
        write_per_class(per_class, found.metrics, header, force)


def _evaluate_segments(model: Path, data: str, json: bool, **options: Any) -> None:
    from topgb.api.figures import evaluate as run

    multiply_fast(options["device"])
    found = run(model, data, **options)
    report_damage(found.damaged)
    figures = found.to_dict()
    if json:
        terminal.show_json(figures)
        return
    terminal.show(f"segments {figures['segments']:,}, {figures['rated']:,} ratings")
    terminal.show(f"MAP@K    {figures['map_at_k']:.4f}   K = {figures['k']:,}, over {figures['classes']:,} classes")
    terminal.show(f"         {figures['map_at_k_submitted']:.4f}   over the classes that the model predicts")


def _print(found: "Rounds", threshold: str | float, intervals: "dict[str, Interval]") -> None:
    mean = found.mean().to_json() | found.mean_decisions()
    deviation = found.deviation() if len(found.scores) > 1 else {}
    positives = found.metrics.positives
    unlabelled = f", {found.metrics.unlabelled:,} of them without labels" if found.metrics.unlabelled else ""
    terminal.show(f"videos   {mean['videos']:,}{unlabelled}")
    if deviation:
        terminal.show(f"rounds   {len(found.scores):,}, mean ± standard deviation")
    at = "the model's thresholds" if threshold == "model" else f"threshold {threshold:g}"
    precisions = {
        kind: f"precision {mean[f'precision_{kind}']:.4f}, recall {mean[f'recall_{kind}']:.4f}"
        for kind in ("micro", "macro")
    }
    for label, key, note in (
        ("GAP@20", "gap", ""),
        ("Hit@1", "hit_at_1", ""),
        ("PERR", "perr", ""),
        ("MAP", "map", f"   over all {len(positives):,} classes"),
        ("", "map_present", f"   over the {int((positives > 0).sum()):,} classes that occur"),
        ("loss", "loss", ""),
        ("F1", "f1_micro", f"   of all pairs at {at}: {precisions['micro']}"),
        ("", "f1_macro", f"   mean over the classes that occur: {precisions['macro']}"),
    ):
        spread = f" ± {deviation[key]:.4f}" if deviation else ""
        if key in intervals:
            spread = f" ({intervals[key][0]:.4f} to {intervals[key][1]:.4f})"
        terminal.show(f"{label:<9}{mean[key]:.4f}{spread}{note}")

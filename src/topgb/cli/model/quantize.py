"""topgb model quantize."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Device, Force, Json, ModelOrRun, OnDamagedOption, report_damage

if TYPE_CHECKING:
    import torch

    from topgb.modelfile import LoadedModel
    from topgb.progress import Progress
    from topgb.quantizing.quantize import TensorSummary
    from topgb.records.dataset import Dataset


def quantize(
    model: ModelOrRun,
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    method: Annotated[
        str,
        typer.Option(
            help="float16; one codebook per tensor as in 2018: uniform, quantile, kmeans; a scale for each row: int8; "
            "packed codes in groups: int6, int5, int4, int3; or entropy: as few --bits per weight as you like, decoded "
            "to 8 bits when loaded."
        ),
    ],
    bits: Annotated[float, typer.Option(help="With entropy: mean bits per weight, everything included.")] = 3.0,
    group: Annotated[int, typer.Option(help="With int6 to int3: how many weights share a scale and a minimum.")] = 128,
    min_elements: Annotated[int, typer.Option(help="Tensors with more weights than this are quantised.")] = 17000,
    calibrate: Annotated[
        str | None,
        typer.Option(help="With entropy: records (labels are not needed) that show where bits matter.", metavar="DATA"),
    ] = None,
    check: Annotated[
        str | None, typer.Option(help="Labelled records to score the model on, before and after.", metavar="DATA")
    ] = None,
    on_damaged: OnDamagedOption = "stop",
    device: Device = "auto",
    force: Force = False,
    json: Json = False,
) -> None:
    """Store a model's large tensors in fewer bits, and say what that costs."""
    from topgb.devices import choose_device
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.modelfile import stored_model
    from topgb.modelfile.exported import exported_bytes, exported_sizes_in_words
    from topgb.progress import TerminalProgress
    from topgb.quantizing.quantize import QuantizeOptions, quantize_file
    from topgb.training.opened import open_model, open_stored

    settings = QuantizeOptions(method, bits, group, min_elements)
    stored, chosen, progress = open_stored(model), choose_device(device), TerminalProgress()
    calibration = None if calibrate is None else open_for(stored, calibrate, on_damaged, with_labels=False)
    checked = None if check is None else open_for(stored, check, on_damaged, progress=progress)
    # `out` may take the place of the model.
    before = stored.file_bytes
    summaries = quantize_file(stored, out, settings, calibration, force, progress)
    after, exported = out.stat().st_size, exported_bytes(stored_model(out))
    scores = None
    if checked is not None:
        scores = [_gap(open_model(path, chosen), checked, chosen, progress) for path in (model, out)]
    for dataset in (calibration, checked):
        if dataset is not None:
            report_damage(dataset.damaged)
            warn_of_videos(dataset)
    if json:
        value = {
            "tensors": [asdict(summary) | {"bits": summary.bits} for summary in summaries],
            "bytes_before": before,
            "bytes_after": after,
            "export_bytes": exported,
        }
        if scores is not None:
            value["gap_before"], value["gap_after"] = scores
        terminal.show_json(value)
        return
    terminal.say(*_table(summaries))
    terminal.say(f"{before:,} → {after:,} bytes: {out}", exported_sizes_in_words(exported))
    if scores is not None:
        terminal.say(f"GAP@20 {scores[0]:.5f} → {scores[1]:.5f} ({scores[1] - scores[0]:+.5f})")


def _gap(model: "LoadedModel", dataset: "Dataset", device: "torch.device", progress: "Progress") -> float:
    from topgb.evaluation.score import evaluate

    return evaluate(model, dataset, device, progress).compute().gap


def _table(summaries: "list[TensorSummary]") -> list[str]:
    rows: list[tuple[str, ...]] = [("tensor", "elements", "stored as", "bits", "bytes before", "after", "error")]
    for s in summaries:
        rows.append(_row(s.name, s.elements, s.encoding, s.bytes_before, s.bytes_after, f"{s.relative_error:.4f}"))
    elements, before, after = (
        sum(getattr(s, f) for s in summaries) for f in ("elements", "bytes_before", "bytes_after")
    )
    rows.append(_row("total", elements, "", before, after, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    aligned = ["<", ">", "<", ">", ">", ">", ">"]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(name: str, elements: int, encoding: str, before: int, after: int, error: str) -> tuple[str, ...]:
    return name, f"{elements:,}", encoding, f"{8 * after / max(elements, 1):.2f}", f"{before:,}", f"{after:,}", error

"""The call `report`: one page about models and their scores on labelled records."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topgb.api.arguments import (
    Data,
    PathLike,
    Size,
    check_choices,
    named,
    to_path,
    to_paths,
    to_pattern,
    to_progress,
    unpacking,
)
from topgb.api.written_calls import written_call
from topgb.errors import DamagedRecordError, InputError, option
from topgb.results import Result

if TYPE_CHECKING:
    from topgb.evaluation.reported import ReportedModel
    from topgb.records.on_damaged import OnDamaged


@dataclass(frozen=True, repr=False)
class ReportFile(Result):
    """A report that was written.

    path     where it is
    scores   each model's figures by name, as `topgb.evaluate` gives them
    damaged  errors of the records that were left out
    """

    path: Path
    scores: dict[str, dict[str, float]]
    damaged: list[DamagedRecordError]

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def to_dict(self) -> dict[str, Any]:
        """`path`, and `scores` by model."""
        return {"path": os.fspath(self.path), "scores": self.scores}


@unpacking
def report(
    models: Sequence[PathLike],
    data: Data,
    out: PathLike,
    *,
    title: str = "topgb report",
    vocabulary: PathLike | None = None,
    force: bool = False,
    on_damaged: "OnDamaged" = "stop",
    device: str = "auto",
    max_unpacked: Size | None = None,
    progress: bool = True,
) -> ReportFile:
    """Write one HTML page about models, which loads nothing from elsewhere (`topgb report`).

    `models` are model files or runs' folders, `data` labelled records. The page has scores with intervals, the runs'
    curves, precision and recall, reliability, size against score, and of the first model the best and worst classes and
    the surest mistakes; class names are those of `vocabulary`, or the model's.

    Raises `InputError` as `evaluate` does, if models have different classes, and if `out` exists and `force` is off.

    >>> page = topgb.report(["run", "a.safetensors"], "records/validate*.tfrecord", "report.html", progress=False)
    >>> list(page.scores)
    ['run', 'a.safetensors']
    """
    from topgb.devices import choose_device
    from topgb.evaluation.opening import open_for, warn_of_videos
    from topgb.evaluation.report import Report, write_report
    from topgb.evaluation.reported import report_on
    from topgb.files import refuse_existing
    from topgb.records.on_damaged import OnDamaged
    from topgb.training.opened import open_model, open_stored
    from topgb.vocabulary import refuse_other_names

    check_choices(on_damaged=(on_damaged, OnDamaged))
    paths, path, pattern, shown = to_paths(models), to_path(out), to_pattern(data), to_progress(progress)
    refuse_existing(path, force)
    if not paths:
        raise InputError("no model is named; a report needs one at least")
    chosen = choose_device(device)
    reported: list[ReportedModel] = []
    damaged: list[DamagedRecordError] = []
    for source in paths:
        stored = open_stored(source)
        header = named(stored.header, vocabulary)
        if reported and reported[0].header.classes != header.classes:
            raise InputError(
                f"{paths[0]} has {reported[0].header.classes} classes and {source} {header.classes}; report on models "
                "of the same"
            )
        if reported:
            first = os.fspath(paths[0]), reported[0].header.class_names
            refuse_other_names(first, (os.fspath(source), header.class_names))
        dataset = open_for(header, pattern, on_damaged, progress=shown)
        about = os.fspath(source), stored.file_bytes, header
        reported.append(report_on(open_model(source, chosen), about, dataset, chosen, True, shown))
        warn_of_videos(dataset)
        damaged = damaged or dataset.damaged
    where = [data] if isinstance(data, str | os.PathLike) else list(data)
    made = written_call("report", [[str(one) for one in paths], ",".join(map(str, where))], option("out", str(path)))
    contents = Report(
        title=title,
        facts=[("records", ", ".join(map(str, where))), *_facts(reported)],
        curves=[(os.fspath(source), _curves(source)) for source in paths],
        models=reported,
        commands=[*(line for model in reported for line in _commands(model)), made],
        recipes=[(model.name, _yaml(model)) for model in reported if "recipe" in model.header.origin],
    )
    write_report(path, contents, force)
    return ReportFile(path, {model.name: model.figures() for model in reported}, damaged)


def _facts(models: "Sequence[ReportedModel]") -> list[tuple[str, str]]:
    header, positives = models[0].header, models[0].metrics.positives
    features = ", ".join(f"{feature.name} {feature.size}" for feature in header.features.features)
    return [
        ("videos", f"{models[0].metrics.videos:,}"),
        ("classes", f"{header.classes:,}, of which {int((positives > 0).sum()):,} occur here"),
        ("labels", f"{int(positives.sum()):,}"),
        ("features", f"{features}; a vector for each {header.features.level}"),
    ]


def _curves(source: Path) -> list[dict[str, Any]]:
    """The log of a run, or of the run that a model file lies in."""
    from topgb.training.curves import read_metrics
    from topgb.training.run_folder import MODEL_FILE, is_run

    folder = source.parent if source.name == MODEL_FILE else source
    return read_metrics(folder) if is_run(folder) else []


def _commands(model: "ReportedModel") -> list[str]:
    """Lines of code that would make the file again, as its origin tells."""
    origin = model.header.origin
    parents = [str(p.get("sha256", "?"))[:12] for p in origin.get("parents", []) if isinstance(p, dict)]
    of = f", of files with SHA-256 {', '.join(parents)}" if parents else ""
    lines = [f"# {model.name}, by {origin.get('software', 'unknown software')}{of}"]
    if "recipe" in origin:
        step = f"step {origin.get('step')}, {origin.get('weights')} weights"
        call = written_call("train", ["recipe.yaml"], option("data", "DATA"), option("out", "RUN"))
        lines.append(f"{call}   # the recipe below; {step}")
    elif "operation" in origin:
        settings = origin.get("settings")
        said = f", {json.dumps(settings, sort_keys=True)}" if settings else ""
        lines.append(f"# made by {origin['operation']}{said}")
    return lines


def _yaml(model: "ReportedModel") -> str:
    import yaml

    return yaml.safe_dump(model.header.origin["recipe"], sort_keys=False, allow_unicode=True, default_flow_style=None)

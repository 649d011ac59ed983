"""The report: one self-contained HTML page about trained models, for people to read."""

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topgb.evaluation.report_page import glossary, page
from topgb.evaluation.report_pictures import (
    draw_curve,
    draw_precision_recall,
    draw_reliability,
    draw_sizes,
    picture,
)
from topgb.evaluation.reported import MOST_LABELS, Mistake, ReportedModel
from topgb.files import atomic_write, refuse_existing

LISTED_CLASSES = 10
# The average precision of fewer positives is chance.
LEAST_POSITIVES = 10
# Charts with more models cannot be read.
MOST_DRAWN = 6
RANKING = {"gap": "GAP@20", "hit_at_1": "Hit@1", "perr": "PERR", "map": "MAP", "map_present": "MAP of classes present"}
RANKING |= {"loss": "loss"}
DECISIONS = {f"{name}_{kind}": f"{shown} {kind}" for kind in ("micro", "macro") for name, shown in (
    ("precision", "precision"), ("recall", "recall"), ("f1", "F1"))}  # fmt: skip

Curves = Sequence[tuple[str, Sequence[dict[str, Any]]]]


@dataclass(frozen=True)
class Report:
    """The contents of the page.

    facts        (label, value) lines at the top
    curves       the name and the log of each run, as `topgb.training.curves.read_metrics` returns it
    models       rows of the table of scores; classes and mistakes are those of the first
    commands     what made all this, as lines of a shell
    recipes      (name, YAML) of trained models
    predictions  sample rows of the challenge's CSV
    compressed   one of the models in fewer bytes; a chart shows GAP against bytes of these and of `models`
    """

    title: str
    facts: Sequence[tuple[str, str]]
    curves: Curves
    models: Sequence[ReportedModel]
    commands: Sequence[str] = ()
    recipes: Sequence[tuple[str, str]] = ()
    predictions: Sequence[str] = ()
    compressed: Sequence[ReportedModel] = ()


def write_report(path: Path, report: Report, force: bool = False) -> None:
    """Write the page. Raises `InputError` if `path` exists and `force` is off, `TopgbError` if it cannot be written."""
    refuse_existing(path, force)
    first, everything = report.models[0], [*report.models, *report.compressed]
    sections = [_table([], [[_text(what), _text(value)] for what, value in report.facts], "facts")]
    sections.append(_scores(report.models))
    if len(everything) > 1:
        sections.append(_sizes(everything))
    if any(entries for _, entries in report.curves):
        sections.append(_curves(report.curves))
    sections.append(_charts(report.models[:MOST_DRAWN]))
    sections += [_classes(first), _mistakes(first)]
    if report.predictions:
        rows = _text("\n".join(report.predictions))
        sections.append(f"<h2>Predictions</h2><p>The first rows of the challenge's CSV.</p><pre>{rows}</pre>")
    sections += [_commands(report), glossary()]
    with atomic_write(path) as file:
        file.write(page(report.title, "\n".join(sections)).encode())


def _scores(models: Sequence[ReportedModel]) -> str:
    ranking = [[_text(m.name), f"{m.file_bytes / 1e6:,.2f} MB", *_cells(m, RANKING)] for m in models]
    decided = [[_text(m.name), _text(m.at), *_cells(m, DECISIONS)] for m in models]
    videos = f"<p>On {models[0].metrics.videos:,} labelled videos. "
    small = "Below each figure its 95% interval.</p>" if models[0].intervals else "</p>"
    return (
        "<h2>Scores</h2>" + videos + small + _table(["model", "file", *RANKING.values()], ranking)
        + "<h3>Deciding by thresholds</h3>" + _table(["model", "at", *DECISIONS.values()], decided)
    )  # fmt: skip


def _cells(model: ReportedModel, names: Iterable[str]) -> list[str]:
    figures = model.figures()
    bounds = {name: f"<small>{low:.4f}–{high:.4f}</small>" for name, (low, high) in model.intervals.items()}
    return [f"{figures[name]:.4f}{bounds.get(name, '')}" for name in names]


def _sizes(models: Sequence[ReportedModel]) -> str:
    ordered = sorted(models, key=lambda model: -model.file_bytes)
    gaps = [model.metrics.compute().gap for model in ordered]
    rows = [
        [str(number), _text(model.name), f"{model.file_bytes:,}", f"{gap:.4f}", f"{gap - max(gaps):+.4f}"]
        for number, (model, gap) in enumerate(zip(ordered, gaps, strict=True), start=1)
    ]
    shown = picture(draw_sizes, ordered, "GAP@20 of each file against its megabytes")
    table = _table(["", "model", "bytes", "GAP@20", "to the best"], rows, "second")
    figure = f"<figure>{shown}<figcaption>The numbers are those of the table.</figcaption></figure>"
    return f'<h2>GAP@20 against bytes</h2><div class="side">{figure}{table}</div>'


def _curves(curves: Curves) -> str:
    pictures = [picture(draw_curve, (key, label, curves), f"{label} by step") for key, label in _KEYS]
    return '<h2>Training</h2><div class="side">' + "".join(f"<figure>{each}</figure>" for each in pictures) + "</div>"


_KEYS = (("loss", "loss"), ("gap", "GAP@20"))


def _charts(models: Sequence[ReportedModel]) -> str:
    recall = picture(draw_precision_recall, models, "precision against recall")
    reliable = picture(draw_reliability, models, "share of labels against probability")
    return (
        '<div class="side"><div><h2>Precision and recall</h2><p>Every video\'s 20 best classes in one list, best '
        f"first. GAP@20 is the area under the curve.</p><figure>{recall}</figure></div><div><h2>Reliability</h2>"
        "<p>How many of the pairs with a probability are labels. On the line, the probabilities mean what they say.</p>"
        f"<figure>{reliable}</figure></div></div>"
    )


def _classes(model: ReportedModel) -> str:
    metrics, averages = model.metrics, model.metrics.average_precisions()
    least = np.zeros(len(averages)) if metrics.thresholds is None else metrics.thresholds.numpy()
    decided = metrics.decided_classes()
    enough = np.flatnonzero(metrics.positives >= LEAST_POSITIVES)
    order = enough[np.argsort(-averages[enough], kind="stable")]
    listed = min(LISTED_CLASSES, len(order) // 2)
    heading = f"<h2>Best and worst classes ({_text(model.name)})</h2>"
    said = f"<p>Of the {len(enough):,} classes with {LEAST_POSITIVES} labels or more.</p>"
    if not listed:
        return f"{heading}<p>Too few classes have {LEAST_POSITIVES} labels or more to tell.</p>"

    def table(name: str, classes: np.ndarray) -> str:
        rows = [
            [_class(model, index), f"{metrics.positives[index]:,}", f"{averages[index]:.3f}", f"{least[index]:.3f}"]
            + [f"{decided[key][index]:.3f}" for key in ("precision", "recall")]
            for index in classes.tolist()
        ]
        return _table([name, "labels", "average precision", "threshold", "precision", "recall"], rows)

    worst = order[len(order) - listed :][::-1]
    return f'{heading}{said}<div class="side">{table("best", order[:listed])}{table("worst", worst)}</div>'


def _mistakes(model: ReportedModel) -> str:
    def table(name: str, mistakes: Sequence[Mistake]) -> str:
        rows = [
            [_text(m.video), _class(model, m.class_number), f"{m.probability:.3g}", _labels(model, m)] for m in mistakes
        ]
        table = _table(["video", "class", "probability", "its labels"], rows, "mistakes")
        return f"<div><h3>{name}</h3>{table}</div>"

    given = table("Given although no label", model.mistakes.given)
    missed = table("Labels it did not see", model.mistakes.missed)
    return (
        f"<h2>The surest mistakes ({_text(model.name)})</h2><p>Look at these videos first: some are the model's "
        f'mistakes, others the labels\'.</p><div class="side">{given}{missed}</div>'
    )


def _labels(model: ReportedModel, mistake: Mistake) -> str:
    names = ", ".join(_class(model, index) for index in mistake.labels[:MOST_LABELS])
    more = len(mistake.labels) - MOST_LABELS
    return (names or "none") + (f" and {more} more" if more > 0 else "")


def _class(model: ReportedModel, index: int) -> str:
    name = model.header.class_name(index)
    return str(index) if name == str(index) else f"{_text(name)} ({index})"


def _commands(report: Report) -> str:
    lines = _text("\n".join(report.commands))
    recipes = "".join(
        f"<details><summary>recipe of {_text(name)}</summary><pre>{_text(text)}</pre></details>"
        for name, text in report.recipes
    )
    return f"<h2>How this was made</h2><pre>{lines}</pre>{recipes}" if lines or recipes else ""


def _text(value: str) -> str:
    return html.escape(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of HTML cells, in a box that scrolls where the page is narrower."""
    head = "<tr>" + "".join(f"<th>{_text(name)}</th>" for name in columns) + "</tr>" if columns else ""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table class="{kind}">{head}{body}</table></div>'

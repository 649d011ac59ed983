"""The report: one self-contained HTML page about trained models, for people to read."""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from topgb.evaluation.metrics import Metrics
from topgb.files import atomic_write, refuse_existing

LISTED_CLASSES = 10
CURVE_POINTS = 400
MARKERS = "osD^v"
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


@dataclass(frozen=True)
class ReportedModel:
    """A model in the report: what to call it, its size in bytes, and its accumulated metrics."""

    name: str
    file_bytes: int
    metrics: Metrics


@dataclass(frozen=True)
class Report:
    """The contents of the page.

    facts        (label, value) lines at the top
    curves       the run's log, as `topgb.training.curves.read_metrics` returns it
    models       rows of the table of scores; the classes of the first are listed
    class_names  V names, or None
    predictions  sample rows of the challenge's CSV
    compressed   one of the models in fewer bytes; a chart shows GAP against bytes of these and of `models`
    """

    title: str
    facts: Sequence[tuple[str, str]]
    curves: Sequence[dict[str, Any]]
    models: Sequence[ReportedModel]
    class_names: Sequence[str] | None = None
    predictions: Sequence[str] = ()
    compressed: Sequence[ReportedModel] = ()


def write_report(path: Path, report: Report, force: bool = False) -> None:
    """Write the page. Raises `InputError` if `path` exists and `force` is off, `TopgbError` if it cannot be written."""
    refuse_existing(path, force)
    sections = [_facts(report.facts), "<h2>Scores</h2>" + _scores(report.models)]
    if report.compressed:
        everything = [*report.models, *report.compressed]
        sections.append("<h2>GAP@20 against bytes</h2>" + _figure(_draw_sizes, everything) + _sizes(everything))
    sections += [
        "<h2>Training</h2>" + _figure(_draw_curves, report.curves),
        "<h2>Precision and recall of the global ranking</h2>"
        "<p>Every video's 20 best classes in one list, best first. GAP@20 is the area under the curve.</p>"
        + _figure(_draw_precision_recall, report.models),
        f"<h2>Best and worst classes ({html.escape(report.models[0].name)})</h2>"
        + _classes(report.models[0], report.class_names),
    ]
    if report.predictions:
        rows = html.escape("\n".join(report.predictions))
        sections.append(f"<h2>Predictions</h2><p>The first rows of the challenge's CSV.</p><pre>{rows}</pre>")
    title = html.escape(report.title)
    page = _PAGE.replace("TITLE", title).replace("BODY", "\n".join(sections))
    with atomic_write(path) as file:
        file.write(page.encode())


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{html.escape(what)}</th><td>{html.escape(value)}</td></tr>" for what, value in facts)
    return f'<table class="facts">{rows}</table>'


def _scores(models: Sequence[ReportedModel]) -> str:
    names = ("model", "file", "GAP@20", "Hit@1", "PERR", "MAP", "MAP of classes present", "loss")
    rows = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    for model in models:
        s = model.metrics.compute()
        figures = (s.gap, s.hit_at_1, s.perr, s.map, s.map_present, s.loss)
        cells = [html.escape(model.name), f"{model.file_bytes / 1e6:,.2f} MB", *(f"{figure:.4f}" for figure in figures)]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table><p>on {models[0].metrics.videos:,} held-out videos</p>"


def _sizes(models: Sequence[ReportedModel]) -> str:
    most = max(model.metrics.compute().gap for model in models)
    rows = ["<tr><th>model</th><th>bytes</th><th>GAP@20</th><th>to the best</th></tr>"]
    for model in sorted(models, key=lambda model: -model.file_bytes):
        gap = model.metrics.compute().gap
        cells = (html.escape(model.name), f"{model.file_bytes:,}", f"{gap:.4f}", f"{gap - most:+.4f}")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"


def _draw_sizes(figure: Figure, models: Sequence[ReportedModel]) -> None:
    axes = figure.subplots()
    for index, model in enumerate(models):
        marker, colour = MARKERS[index // len(COLOURS)], COLOURS[index % len(COLOURS)]
        axes.plot(model.file_bytes / 1e6, model.metrics.compute().gap, marker, color=colour, label=model.name)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _label_axes(axes, "megabytes of the file", "GAP@20")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _classes(model: ReportedModel, class_names: Sequence[str] | None) -> str:
    averages = model.metrics.average_precisions()
    present = np.flatnonzero(model.metrics.positives)
    order = present[np.argsort(-averages[present], kind="stable")]
    listed = min(LISTED_CLASSES, len(order) // 2)

    def table(heading: str, classes: np.ndarray) -> str:
        rows = f"<tr><th>{heading}</th><th>positives</th><th>average precision</th></tr>"
        for index in classes:
            name = html.escape(str(index) if class_names is None else f"{index} {class_names[index]}")
            rows += f"<tr><td>{name}</td><td>{model.metrics.positives[index]:,}</td><td>{averages[index]:.3f}</td></tr>"
        return f"<table>{rows}</table>"

    worst = order[len(order) - listed :][::-1]
    return f'<div class="side">{table("best classes", order[:listed])}{table("worst classes", worst)}</div>'


def _draw_curves(figure: Figure, curves: Sequence[dict[str, Any]]) -> None:
    steps = [entry for entry in curves if "loss" in entry]
    validations = [entry for entry in curves if "validation" in entry]
    for axes, key, label in zip(figure.subplots(1, 2), ("loss", "gap"), ("loss", "GAP@20"), strict=True):
        # A run that trains without labels has no GAP.
        known = [e for e in steps if key in e]
        axes.plot(
            [e["step"] for e in known], [e[key] for e in known], color=COLOURS[0], linewidth=1, label="training batches"
        )
        if validations:
            axes.plot(
                [e["step"] for e in validations],
                [e["validation"][key] for e in validations],
                "o-",
                color=COLOURS[1],
                markersize=4,
                label="held-out videos",
            )
        _label_axes(axes, "step", label)


def _draw_precision_recall(figure: Figure, models: Sequence[ReportedModel]) -> None:
    axes = figure.subplots()
    for index, model in enumerate(models):
        hits = np.cumsum(model.metrics.ranking().hits)
        points = np.unique(np.linspace(0, len(hits) - 1, min(CURVE_POINTS, len(hits))).astype(int))
        recall = hits[points] / max(model.metrics.positives.sum(), 1)
        label = f"{model.name}, GAP {model.metrics.compute().gap:.3f}"
        style = ("-", "--", ":", "-.")[index % 4]
        axes.plot(recall, hits[points] / (points + 1), style, color=COLOURS[index % len(COLOURS)], label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _label_axes(axes, "recall", "precision")


def _label_axes(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _figure(draw: Any, data: Any) -> str:
    # A fixed salt and no date: the same run gives the same page.
    with matplotlib.rc_context({"svg.hashsalt": "topgb", "font.size": 10}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        draw(figure, data)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>TITLE</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: right; border-bottom: 1px solid #e3e3e3; vertical-align: top; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.facts th, .facts td { text-align: left; border: 0; padding: .1rem 1.5rem .1rem 0; }
.side { display: flex; gap: 4rem; flex-wrap: wrap; }
svg { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .8rem; font-size: 12px; }
</style></head><body>
<h1>TITLE</h1>
BODY
</body></html>
"""

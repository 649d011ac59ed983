"""The report: what stands in it, and how it looks in a real browser."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from conftest import SMALL_CLASSES
from surroundings import for_browsers
from topgb.evaluation.bootstrap import Bootstrap
from topgb.evaluation.intervals import ResampledMetrics
from topgb.evaluation.report import LEAST_POSITIVES, Report, write_report
from topgb.evaluation.report_page import GLOSSARY
from topgb.evaluation.reported import MOST_MISTAKES, Mistake, Mistakes, Reliability, ReportedModel
from topgb.modelfile import read_model_file

CHROMIUM = Path("/usr/bin/chromium")
NAMES = tuple(f"class <{index}>" for index in range(SMALL_CLASSES))
VIDEOS = 60


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return model_file(tmp_path_factory.mktemp("model") / "a model.safetensors", class_names=NAMES)


def _reported(model: Path, name: str, size: int, seed: int = 0) -> ReportedModel:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(VIDEOS, SMALL_CLASSES, generator=generator)
    labels = torch.rand(VIDEOS, SMALL_CLASSES, generator=generator) < probabilities
    header = read_model_file(model)[0]
    metrics, reliability, mistakes = ResampledMetrics(SMALL_CLASSES, 0.5 + torch.zeros(12)), Reliability(), Mistakes()
    metrics.add(probabilities, labels)
    reliability.add(probabilities, labels)
    mistakes.add([f"video {i}" for i in range(VIDEOS)], probabilities, labels)
    intervals = metrics.intervals(Bootstrap(resamples=10))
    return ReportedModel(name, size, metrics, header, intervals, reliability, mistakes)


@pytest.fixture(scope="module")
def report(model) -> Report:
    """A page with everything in it, and as many entries as the demo has."""
    models = [_reported(model, name, 1_500_000 + 100_000 * n, n) for n, name in enumerate(("m <i>", "other"))]
    curves = [{"step": s, "loss": 1 / s, "gap": 0.3 * s} for s in (1, 2)]
    curves.append({"step": 2, "validation": models[0].figures()})
    compressed = [_reported(model, f"m, in {bits:g} bits", int(bits * 70_000), 0) for bits in torch.arange(1, 8, 0.5)]
    return Report(
        title="a <title>",
        facts=[("x", "y & z")],
        curves=[("run", curves)],
        models=models,
        commands=["topgb train …"],
        recipes=[("m", "model: {a: 1}")],
        predictions=["a,b"],
        compressed=compressed,
    )


def test_the_report_is_one_page_and_always_the_same(report, tmp_path):
    write_report(tmp_path / "1.html", report)
    write_report(tmp_path / "2.html", report)
    page = (tmp_path / "1.html").read_text()
    assert page == (tmp_path / "2.html").read_text()
    assert page.count("<svg") == 5
    first = report.models[0]
    low, high = first.intervals["gap"]
    for part in (
        *("a &lt;title&gt;", "y &amp; z", "1.50 MB", "m &lt;i&gt;", "70,000", "class &lt;3&gt; (3)", "model: {a: 1}"),
        *(f"{figure:.4f}" for figure in first.figures().values() if figure < 1),
        f"{low:.4f}–{high:.4f}",
        *(mistake.video for mistake in [*first.mistakes.given, *first.mistakes.missed]),
        *GLOSSARY,
    ):
        assert part in page, part
    assert "<i>" not in page
    assert set(re.findall(r"https?://[^\"'\s]*", page)) == {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_classes_with_few_labels_are_not_listed(report, tmp_path):
    metrics = report.models[0].metrics
    assert (metrics.positives >= LEAST_POSITIVES).all()
    few = _reported_once(report.models[0])
    write_report(tmp_path / "few.html", replace(report, models=[few], compressed=[]))
    page = (tmp_path / "few.html").read_text()
    assert f"Too few classes have {LEAST_POSITIVES} labels or more" in page
    assert "GAP@20 against bytes" not in page


def _reported_once(model: ReportedModel) -> ReportedModel:
    metrics = ResampledMetrics(SMALL_CLASSES, 0.5 + torch.zeros(12))
    metrics.add(torch.eye(SMALL_CLASSES), torch.eye(SMALL_CLASSES, dtype=torch.bool))
    return replace(model, metrics=metrics, intervals={})


def test_the_surest_mistakes_are_found_over_batches():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(50, 8, generator=generator)
    labels = torch.rand(50, 8, generator=generator) < 0.3
    found, ids = Mistakes(), [f"v{i}" for i in range(50)]
    for part in (slice(0, 20), slice(20, 50)):
        found.add(ids[part], probabilities[part], labels[part])
    pairs = [
        Mistake(ids[row], c, float(probabilities[row, c]), labels[row].nonzero().flatten().tolist())
        for row in range(50)
        for c in range(8)
    ]
    wrong = [pair for pair in pairs if pair.class_number not in pair.labels]
    unseen = [pair for pair in pairs if pair.class_number in pair.labels]
    assert found.given == sorted(wrong, key=lambda pair: -pair.probability)[:MOST_MISTAKES]
    assert found.missed == sorted(unseen, key=lambda pair: pair.probability)[:MOST_MISTAKES]
    right = Mistakes()
    right.add(["v"], torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert right.given == []


def test_the_command_reports_on_files_and_runs(model, small_records, tmp_path, monkeypatch):
    monkeypatch.setattr("topgb.evaluation.reported.BOOTSTRAP", Bootstrap(resamples=10))
    other = model_file(tmp_path / "other.safetensors", seed=5)
    path = tmp_path / "report.html"
    done = program("report", model, other, small_records["validate"], "--out", path, "--title", "Ä <b>")
    assert done.returncode == 0, done.stderr
    page = path.read_text()
    assert "<h1>Ä &lt;b&gt;</h1>" in page
    assert "topgb report" in page
    scores = topgb.evaluate(other, small_records["validate"], progress=False)
    assert f"{scores.gap:.4f}" in page
    assert f"{scores.f1_macro:.4f}" in page
    refused = program("report", model, small_records["validate"], "--out", path)
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    fewer = model_file(tmp_path / "fewer.safetensors", classes=SMALL_CLASSES - 1)
    refused = program("report", model, fewer, small_records["validate"], "--out", tmp_path / "x.html")
    assert "has 12 classes and" in refused.stderr


def test_the_page_in_a_browser(report, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install '.[dev]'")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there; apt-get install chromium")
    path = tmp_path / "report.html"
    write_report(path, report)
    said: list[str] = []
    fetched: list[str] = []
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=for_browsers())
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        for width in (380, 1400):
            for scheme in ("light", "dark"):
                page.set_viewport_size({"width": width, "height": 900})
                page.emulate_media(color_scheme=scheme)
                page.goto(path.as_uri())
                _check_readable(page, width)
        page.emulate_media(media="print")
        assert len(page.pdf()) > 10_000
        browser.close()
    assert said == []
    assert {url for url in fetched if not url.startswith("data:")} == {path.as_uri()}


def _check_readable(page, width: int) -> None:
    """Nothing is wider than the window but in its own scrolling box, and text is large enough and stands out."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height).filter(h => h > 0)"
    )
    assert min(sizes) >= 8
    ink, paper = page.evaluate(
        "[getComputedStyle(document.querySelector('svg text')).fill, getComputedStyle(document.body).backgroundColor]"
    )
    light, dark = sorted((sum(map(int, re.findall(r"\d+", value)[:3])) for value in (ink, paper)), reverse=True)
    assert light - dark > 400
    # The numbers in the chart of sizes cover neither each other nor a point.
    boxes = page.evaluate(
        """[...document.querySelectorAll('figure:has(figcaption) svg text')].filter(t => /^[0-9]+$/.test(t.textContent))
        .map(t => t.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"""
    )
    for index, a in enumerate(boxes):
        for b in boxes[index + 1 :]:
            assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 3 or b[3] <= a[1] + 3, (a, b)

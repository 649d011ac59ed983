"""The documents say what is true: code in them runs, and what they name exists."""

import re
from pathlib import Path

import pytest
import torch

from topgb.features import Feature, FeatureSpec
from topgb.models import build_tagger, parse_model, registry
from topgb.training.recipe import shipped_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_contributings_worked_example_works():
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL).group(1)
    lines = [line.removeprefix("   ") for line in code.splitlines()]
    try:
        exec("\n".join(lines), {"__name__": "example"})
        spec = FeatureSpec("frame", (Feature("rgb", 3, "float32"),))
        section = {"aggregator": "maximum", "normalization": "none", "head": "logistic"}
        tagger = build_tagger(spec, 2, parse_model(section)).eval()
        frames = torch.tensor([[[1.0, 5.0, -2.0], [3.0, 4.0, -1.0], [9.0, 9.0, 9.0]]])
        assert tagger.aggregator(frames, torch.tensor([2])).tolist() == [[3.0, 5.0, -1.0]]
    finally:
        registry._AGGREGATORS.pop("maximum", None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_exists(page):
    for line in re.findall(r"^\s*(from topgb\S* import [^#\n]+|import topgb\S*)", page.read_text(), re.MULTILINE):
        exec(line, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_recipes_a_page_names_exist(page):
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
    for path in re.findall(r"`((?:src|docs|benchmarks|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / path).exists() or "maximum" in path, path
    for recipe in re.findall(r"topgb train ([a-z][\w-]*) ", text):
        assert recipe in shipped_recipes(), recipe


def test_files_that_the_house_names_exist():
    page = (ROOT / "docs/architecture.md").read_text()
    files = [path.as_posix() for folder in ("src/topgb", "tests") for path in (ROOT / folder).rglob("*.py")]
    named = set(re.findall(r"[\w/]+\.py\b", page))
    assert len(named) > 60
    assert {name for name in named if not any(file.endswith(f"/{name}") for file in files)} == set()

"""The model card: what a hub reads, and what a person copies."""

from pathlib import Path

import pytest
import yaml

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from conftest import SMALL_CLASSES


def _check_as_the_hub_reads_it(path: Path, scores: dict[str, float]) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    data = hub.ModelCard(path.read_text()).data
    assert (data.library_name, data.pipeline_tag, data.model_name) == ("topgb", "video-classification", "my model")
    assert {result.metric_type: result.metric_value for result in data.eval_results} == scores


def test_a_card_has_front_matter_scores_and_use(small_records, tmp_path):
    names = tuple(f"class: {index}" for index in range(SMALL_CLASSES))
    model, path = model_file(tmp_path / "my model.safetensors", class_names=names), tmp_path / "README.md"
    done = program("model", "card", model, "--out", path, "--data", small_records["validate"])
    assert done.returncode == 0, done.stderr
    _, matter, page = path.read_text().split("---\n", 2)
    front = yaml.safe_load(matter)
    assert front["library_name"] == "topgb"
    (result,) = front["model-index"][0]["results"]
    found = {metric["type"]: metric["value"] for metric in result["metrics"]}
    scores = topgb.evaluate(model, small_records["validate"], progress=False)
    assert abs(found["gap"] - scores.gap) < 1e-4
    assert 'topgb.load("my model.safetensors")' in page
    assert "class: 11" in page
    _check_as_the_hub_reads_it(path, found)
    refused = program("model", "card", model, "--out", path)
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    topgb.card(model, path, force=True)
    assert "model-index" not in path.read_text()

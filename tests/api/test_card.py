"""The model card: what a hub reads, and what a person copies."""

import yaml

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from conftest import SMALL_CLASSES


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
    refused = program("model", "card", model, "--out", path)
    assert (refused.returncode, "--force" in refused.stderr) == (2, True)
    topgb.card(model, path, force=True)
    assert "model-index" not in path.read_text()

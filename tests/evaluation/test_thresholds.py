"""Thresholds: found where they should be, kept in the file, carried over or left out, and scored as defined."""

import csv
import json

import numpy as np
import pytest
import torch

from cli.program import topgb
from combining.small_models import DBOF, model_file
from conftest import SMALL_CLASSES
from topgb import InputError, load
from topgb.errors import TopgbWarning
from topgb.evaluation.bootstrap import Bootstrap
from topgb.evaluation.intervals import FIGURES, ResampledMetrics
from topgb.evaluation.metrics import Metrics
from topgb.evaluation.thresholds import COMMON, F1, GRID, Curves, Goal, find_thresholds
from topgb.modelfile import read_model_file

pytestmark = pytest.mark.numeric

GOALS = [*F1, "precision=0.8", "recall=0.6"]


def _drawn(videos: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Calibrated probabilities and their labels."""
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(videos, classes, generator=generator) ** 3
    return probabilities, torch.rand(videos, classes, generator=generator) < probabilities


def _curves(probabilities: torch.Tensor, labels: torch.Tensor) -> Curves:
    curves = Curves(labels.shape[1])
    for scores, truth in zip(probabilities.split(64), labels.split(64), strict=True):
        curves.add(scores, truth)
    return curves


def _decided(probabilities: torch.Tensor, labels: torch.Tensor, thresholds: np.ndarray) -> dict[str, float]:
    metrics = Metrics(labels.shape[1], thresholds)
    metrics.add(probabilities, labels)
    return metrics.decisions().to_json()


def test_figures_at_thresholds_are_those_of_their_definition():
    probabilities, labels = _drawn(50, 30)
    labels[:, 3] = False
    thresholds = np.linspace(0.1, 0.9, 30)
    given = (probabilities.numpy() >= thresholds.astype(np.float32)).astype(float)
    truth = labels.numpy().astype(float)
    right, present = given * truth, truth.sum(0) > 0
    found = _decided(probabilities, labels, thresholds)
    assert found["precision_micro"] == pytest.approx(right.sum() / given.sum())
    assert found["recall_micro"] == pytest.approx(right.sum() / truth.sum())
    assert found["f1_micro"] == pytest.approx(2 * right.sum() / (given.sum() + truth.sum()))
    by_class = [2 * r / (g + t) for r, g, t in zip(right.sum(0), given.sum(0), truth.sum(0), strict=True) if t]
    assert found["f1_macro"] == pytest.approx(np.mean(by_class))
    recalls = right.sum(0)[present] / truth.sum(0)[present]
    assert found["recall_macro"] == pytest.approx(recalls.mean())
    precisions = right.sum(0)[present] / np.maximum(given.sum(0)[present], 1)
    assert found["precision_macro"] == pytest.approx(precisions.mean())


def test_merged_metrics_decide_as_one_does():
    probabilities, labels = _drawn(40, 25)
    thresholds = np.full(25, 0.3)
    whole, first, second = (Metrics(25, thresholds) for _ in range(3))
    whole.add(probabilities, labels)
    first.add(probabilities[:15], labels[:15])
    second.add(probabilities[15:], labels[15:])
    first.merge(second)
    assert first.decisions() == whole.decisions()


def test_intervals_are_those_of_records_drawn_again():
    probabilities, labels = _drawn(30, 25)
    bootstrap, thresholds = Bootstrap(resamples=20, seed=3), np.full(25, 0.3)
    metrics = ResampledMetrics(25, thresholds)
    for part in (slice(0, 12), slice(12, 30)):
        one = ResampledMetrics(25, thresholds)
        one.add(probabilities[part], labels[part])
        metrics.merge(one)
    generator, draws = np.random.default_rng(bootstrap.seed), []
    for _ in range(bootstrap.resamples):
        chosen = np.sort(generator.integers(0, 30, 30))
        again = Metrics(25, thresholds)
        again.add(probabilities[chosen], labels[chosen])
        draws.append({**again.compute().to_json(), **again.decisions().to_json()})
    found = metrics.intervals(bootstrap)
    assert list(found) == [*FIGURES, *metrics.decisions().to_json()]
    for name, interval in found.items():
        assert interval == pytest.approx(bootstrap.interval(np.array([draw[name] for draw in draws]))), name


@pytest.mark.parametrize("goal", GOALS)
def test_one_chance_label_moves_no_threshold_far(goal):
    chosen = Goal.parse(goal)
    probabilities, labels = _drawn(400, 20)
    # Class 0 is rare.
    probabilities[:, 0] *= 0.05
    labels[:, 0] = False
    without = _curves(probabilities, labels)
    labels[int(probabilities[:, 0].argsort()[200]), 0] = True
    label = _curves(probabilities, labels)
    before, after = (find_thresholds(curves, chosen).values for curves in (without, label))
    assert 0.5 < after[0] / before[0] < 2
    assert after[1:] == pytest.approx(before[1:], rel=0.2)
    alone = [find_thresholds(curves, chosen, shrink=False).values[0] for curves in (without, label)]
    assert alone[1] < alone[0] / 10 or chosen.measure != "f1_macro"
    assert set(COMMON) == {Goal.parse(each).measure for each in GOALS}


def test_shrunk_thresholds_are_better_on_other_videos():
    (fitting, truth), (probabilities, labels) = _drawn(60, 200, 1), _drawn(400, 200, 2)
    curves = _curves(fitting, truth)
    scores = {}
    for goal in F1:
        alone = find_thresholds(curves, Goal(goal), shrink=False)
        scores[goal] = _decided(probabilities, labels, find_thresholds(curves, Goal(goal)).values)
        assert scores[goal]["f1_micro"] > _decided(probabilities, labels, alone.values)["f1_micro"] + 0.01
        assert scores[goal]["f1_macro"] > _decided(probabilities, labels, alone.values)["f1_macro"] + 0.01
    common = _decided(probabilities, labels, np.full(200, find_thresholds(curves, Goal("f1")).common))
    assert scores["f1_micro"]["f1_micro"] > common["f1_micro"] - 0.002


@pytest.mark.parametrize("goal", ["precision=0.8", "recall=0.6"])
def test_the_wanted_precision_or_recall_is_reached_on_other_videos(goal):
    (fitting, truth), (probabilities, labels) = _drawn(2000, 20, 1), _drawn(2000, 20, 2)
    chosen = Goal.parse(goal)
    found = _decided(probabilities, labels, find_thresholds(_curves(fitting, truth), chosen).values)
    assert found[f"{chosen.measure}_micro"] == pytest.approx(chosen.least, abs=0.02)


def test_probabilities_beyond_the_grid_are_counted():
    probabilities = torch.tensor([[0.0, 1.0, float(GRID[0])], [1.0, 0.0, float(GRID[-1])]])
    curves = _curves(probabilities, torch.tensor([[True, True, False], [True, False, True]]))
    assert curves.given.sum(1).tolist() == [1, 1, 2]
    assert curves.right.sum(1).tolist() == [1, 1, 1]
    assert curves.positives.tolist() == [2, 1, 1]


@pytest.mark.parametrize("text", ["f2", "precision", "precision=1.5", "recall=0", "recall=x", "precision=nan"])
def test_other_goals_are_refused(text):
    with pytest.raises(InputError, match=f"for_='{text}' is none of f1, f1_micro, f1_macro, precision=P and recall=R"):
        Goal.parse(text)


@pytest.fixture(scope="module")
def decided(small_records, tmp_path_factory):
    """A folder with a model `m`, and `t`, the same with thresholds."""
    folder = tmp_path_factory.mktemp("thresholds")
    model_file(folder / "m.safetensors", DBOF, class_names=tuple(f"name {i}" for i in range(SMALL_CLASSES)))
    done = topgb(
        "thresholds", folder / "m.safetensors", small_records["train"], "--out", folder / "t.safetensors",
        "--for", "f1_macro", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "found.json").write_text(done.stdout)
    return folder


def test_the_command_writes_the_same_model_with_thresholds(decided, small_records):
    found = json.loads((decided / "found.json").read_text())
    (before, tensors), (after, same) = (read_model_file(decided / f"{name}.safetensors") for name in "mt")
    assert after.thresholds.tolist() == found["thresholds"]
    assert len(set(found["thresholds"])) > 1
    assert found["goal"] == "f1_macro"
    assert found["videos"] == 230
    assert (before.members, before.tensors, before.class_names) == (after.members, after.tensors, after.class_names)
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)
    assert json.loads(after.dumps())["version"] == 3
    assert json.loads(before.dumps())["version"] == 1
    refused = topgb("thresholds", decided / "m.safetensors", small_records["train"], "--out", decided / "t.safetensors")
    assert refused.returncode == 2
    assert "--force" in refused.stderr
    refused = topgb("thresholds", decided / "m.safetensors", "x", "--out", decided / "u.safetensors", "--for", "f3")
    assert "--for f3 is none of" in refused.stderr
    assert "thresholds for f1_macro" in topgb("model", "show", decided / "t.safetensors").stdout


def test_eval_decides_by_the_files_thresholds_unless_told_otherwise(decided, small_records, tmp_path):
    data = small_records["validate"]

    def scores(name: str, *options: str) -> dict:
        done = topgb("eval", decided / f"{name}.safetensors", data, "--json", *options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    own = scores("t", "--per-class", str(tmp_path / "classes.csv"))
    assert own["threshold"] == "model"
    assert own == scores("t", "--threshold", "model")
    assert own["f1_macro"] > scores("m")["f1_macro"]
    assert scores("m")["threshold"] == 0.5
    assert scores("t", "--threshold", "0.5") == scores("m")
    rows = list(csv.DictReader((tmp_path / "classes.csv").read_text().splitlines()))
    assert [float(row["threshold"]) for row in rows] == pytest.approx(read_thresholds(decided).tolist(), rel=1e-5)
    f1 = [float(row["f1"]) for row in rows if int(row["positives"])]
    assert np.mean(f1) == pytest.approx(own["f1_macro"], abs=1e-6)
    with_intervals = scores("t", "--interval")
    for name, (low, high) in with_intervals.pop("interval").items():
        assert low <= own[name] <= high, name
    assert with_intervals == own
    for options, said in (
        (["--threshold", "1.5"], "--threshold 1.5 is no probability"),
        (["--threshold", "many"], "--threshold many is no probability"),
        (["--interval", "--frames", "random:3", "--rounds", "2"], "leave out --rounds"),
    ):
        assert said in topgb("eval", decided / "t.safetensors", data, *options).stderr
    assert "has no thresholds" in topgb("eval", decided / "m.safetensors", data, "--threshold", "model").stderr
    rounds = scores("t", "--frames", "random:3", "--rounds", "2")
    assert np.mean([each["f1_micro"] for each in rounds["rounds"]]) == pytest.approx(rounds["f1_micro"])


def read_thresholds(folder) -> np.ndarray:
    return read_model_file(folder / "t.safetensors")[0].thresholds


def test_a_model_tags_by_its_thresholds(decided):
    model = load(decided / "t.safetensors")
    frames = np.random.default_rng(0).integers(0, 256, (5, model.features.width), dtype=np.uint8)
    probabilities = model.predict(frames)
    given = {model.header.class_name(i) for i in np.flatnonzero(probabilities >= read_thresholds(decided))}
    assert {name for name, _ in model.tag(frames, top=None, threshold="model")} == given
    with pytest.raises(InputError, match="has no thresholds"):
        load(decided / "m.safetensors").tag(frames, threshold="model")


def test_the_same_model_keeps_thresholds_and_another_says_that_it_has_none(decided, small_records, tmp_path):
    model, data = decided / "t.safetensors", small_records["validate"]
    small = tmp_path / "small.safetensors"
    done = topgb("model", "quantize", model, "--out", small, "--method", "int8", "--min-elements", "10")
    assert (done.returncode, "thresholds" in done.stderr) == (0, False)
    assert read_model_file(small)[0].thresholds.tolist() == read_thresholds(decided).tolist()
    for command in (
        ["average", model, decided / "m.safetensors"],
        ["ensemble", model, decided / "m.safetensors"],
        ["remember", model, "--data", data],
        ["shrink", model, "--budget", "1MB", "--data", data],
    ):
        out = tmp_path / f"{command[0]}.safetensors"
        done = topgb("model", *command, "--out", out)
        assert done.returncode == 0, done.stderr
        assert f"warning: the thresholds of {model} are for its own probabilities" in done.stderr
        assert read_model_file(out)[0].extras == {}


def test_an_export_says_the_thresholds(decided):
    from topgb.modelfile.export.exporting import description

    assert json.loads(description(read_model_file(decided / "t.safetensors")[0]))["thresholds"] == (
        read_thresholds(decided).tolist()
    )
    assert "thresholds" not in json.loads(description(read_model_file(decided / "m.safetensors")[0]))


def test_a_call_warns_as_the_command_does(decided, tmp_path):
    import topgb as product

    models = [decided / "t.safetensors", decided / "m.safetensors"]
    with pytest.warns(TopgbWarning, match="are left out; topgb thresholds finds the new model's"):
        product.ensemble(models, tmp_path / "e.safetensors")

"""MAP@K equals an independent computation, and the best segments of each class are written and checked."""

import numpy as np
import pytest
import torch

from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.evaluation.segments import RankingLimits, best_segments, score_segments
from topgb.modelfile import load
from topgb.records.segment_dataset import SegmentCut, open_segments
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.youtube8m.best_segments import BestSegments
from topgb.youtube8m.segment_submission import check_segments, is_segment_submission, write_segments
from topgb.youtube8m.segments import RatedPairs, map_at_k

pytestmark = pytest.mark.numeric
CPU = torch.device("cpu")


def _slowly(scores, rated, positive, k, predicted):
    """Both means of the definition, one segment at a time; arrays [N, V]."""
    strict, lenient, occurring = [], [], 0
    for number in range(scores.shape[1]):
        total = positive[:, number].sum()
        if not total:
            continue
        occurring += 1
        if not predicted[number]:
            continue
        ranking = sorted(range(len(scores)), key=lambda segment: (-scores[segment, number], segment))[:k]
        rank = hits = 0
        precisions = 0.0
        for segment in ranking:
            if not rated[segment, number]:
                continue
            rank += 1
            if positive[segment, number]:
                hits += 1
                precisions += hits / rank
        strict.append(precisions / total)
        lenient.append(precisions / min(total, k))
    return sum(strict) / occurring, sum(lenient) / len(lenient)


def _drawn(seed, ties):
    generator = np.random.default_rng(seed)
    scores = generator.random((60, 7)).astype(np.float32)
    if ties:
        scores = np.round(scores * 4).astype(np.float32) / 4
    rated = generator.random((60, 7)) < 0.4
    positive = rated & (generator.random((60, 7)) < 0.5)
    positive[:, 5] = False
    predicted = np.array([True] * 6 + [False])
    return scores, rated, positive, predicted


@pytest.mark.parametrize("k", [1, 5, 20, 59, 60, 1000])
@pytest.mark.parametrize("ties", [False, True])
def test_map_equals_an_independent_computation(k, ties):
    scores, rated, positive, predicted = _drawn(k, ties)
    pairs, best = RatedPairs(), BestSegments(7, k, 60)
    for start in range(0, 60, 13):
        part = slice(start, start + 13)
        pairs.add(start, positive[part], rated[part], scores[part])
        best.add(scores[part])
    first = {number: best.of(number)[0] for number in range(7)} if k < 60 else None
    found = map_at_k(pairs, 60, k, predicted, first)
    strict, lenient = _slowly(scores, rated, positive, k, predicted)
    # Sums of at most 60 fractions in another order.
    assert found.map_at_k == pytest.approx(strict, abs=1e-12)
    assert found.map_at_k_submitted == pytest.approx(lenient, abs=1e-12)
    assert (found.rated, found.classes) == (rated.sum(), positive.any(0).sum())


@pytest.mark.parametrize("memory", [None, 1000])
def test_the_best_are_those_of_a_full_sort(memory, tmp_path):
    scores = np.round(np.random.default_rng(0).random((6000, 3)) * 50).astype(np.float32) / 50
    best = BestSegments(3, 100, 6000, memory, tmp_path)
    for start in range(0, 6000, 37):
        best.add(scores[start : start + 37])
    for number in range(3):
        wanted = np.argsort(-scores[:, number], kind="stable")[:100]
        found, values = best.of(number)
        assert found.tolist() == wanted.tolist()
        assert values.tolist() == scores[wanted, number].tolist()
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rated")
    options = SynthOptions(videos_per_shard=15, frames=(21, 44), segments=3)
    write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 40, options)
    return folder


@pytest.mark.parametrize("k", [10, 100_000])
def test_a_models_score_equals_that_of_its_predictions(rated, tmp_path, k):
    model = load(model_file(tmp_path / "m.safetensors"))
    dataset = open_segments(str(rated), SMALL_SPEC, SMALL_CLASSES, SegmentCut())
    found = score_segments(model, dataset, CPU, k, np.arange(SMALL_CLASSES))
    batch = dataset.read_batch([dataset.key(number) for number in range(dataset.num_records)])
    scores = model.predict_batch(batch).detach().numpy()
    weights, labels = batch.weights.numpy() > 0, batch.labels.numpy()
    strict, lenient = _slowly(scores, weights, labels, k, np.ones(SMALL_CLASSES, bool))
    # Batches of other sizes may round probabilities otherwise.
    assert found.map_at_k == pytest.approx(strict, abs=1e-6)
    assert found.map_at_k_submitted == pytest.approx(lenient, abs=1e-6)
    assert (found.segments, found.rated, found.k) == (120, 120, k)


def test_every_segment_of_every_class_is_written(rated, tmp_path):
    model = load(model_file(tmp_path / "m.safetensors"))
    dataset = open_segments(str(rated), SMALL_SPEC, SMALL_CLASSES, SegmentCut("every"))
    rows = list(best_segments(model, dataset, CPU, np.array([1, 4]), RankingLimits(50, 100, tmp_path)))
    assert [number for number, _ in rows] == [1, 4]
    batch = dataset.read_batch([dataset.key(number) for number in range(dataset.num_records)])
    scores = model.predict_batch(batch).detach().numpy()
    for number, names in rows:
        assert len(names) == 50
        by_name = dict(zip(batch.ids, scores[:, number], strict=True))
        shown = [by_name[name] for name in names]
        assert np.all(np.diff(shown) < 1e-6)
        assert min(shown) >= np.sort(scores[:, number])[-50] - 1e-6
    write_segments(tmp_path / "s.csv", rows)
    lines = (tmp_path / "s.csv").read_text().splitlines()
    assert lines[0] == "Class,Segments"
    assert lines[1] == "1," + " ".join(rows[0][1])
    assert is_segment_submission(tmp_path / "s.csv")
    assert not check_segments(tmp_path / "s.csv").count


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("3,a:5 b:10 a:5", "segment a:5 comes twice"),
        ("3,a:5  b:10", "is no segment"),
        ("3,a:5 b", "'b' is no segment"),
        ("x,a:5", "is no class"),
        ("2,a:5", "class 2 has a row already, in line 2"),
        ("3,", "has no segments"),
        ("3,c:5", "not in the data"),
        ("3", "1 columns instead of 2"),
    ],
)
def test_faults_of_a_submission_are_named(row, said, tmp_path):
    (tmp_path / "s.csv").write_text(f"Class,Segments\n2,a:0 b:0\n{row}\n")
    found = check_segments(tmp_path / "s.csv", ["a", "b"])
    assert found.count == 1
    assert said in found.problems[0].what
    assert found.problems[0].line == 3


def test_too_many_segments_are_found(tmp_path):
    (tmp_path / "s.csv").write_text("Class,Segments\n1," + " ".join(f"a:{n}" for n in range(100_001)) + "\n")
    assert "100,001 segments" in check_segments(tmp_path / "s.csv").problems[0].what

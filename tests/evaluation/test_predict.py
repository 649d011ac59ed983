"""Evaluation and prediction over records, with models whose probabilities are known."""

import csv
import gzip
import io
import statistics

import pytest
import torch

from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.batch import Batch
from topgb.errors import InputError, TopgbError
from topgb.evaluation.predict import csv_rows, write_predictions
from topgb.evaluation.predictions import FrameDraw, predictions
from topgb.evaluation.score import evaluate, evaluate_rounds, write_per_class
from topgb.modelfile import Header, Member
from topgb.models import parse_model
from topgb.progress import SILENT
from topgb.records.dataset import evaluation_batches, open_dataset
from topgb.records.sampling import parse_sampling

CPU = torch.device("cpu")


class Oracle:
    """Gives each video's classes probabilities that fall with the class number, its labels the highest."""

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        base = torch.linspace(0.4, 0.1, SMALL_CLASSES).expand(len(batch), -1).clone()
        return base if batch.labels is None else base + 0.5 * batch.labels


def _open(pattern: str):
    return open_dataset(pattern, SMALL_SPEC, SMALL_CLASSES, 300)


def test_an_oracle_scores_one(small_records):
    scores = evaluate(Oracle(), _open(small_records["validate"]), CPU).compute()
    assert scores.videos == 90
    assert (scores.gap, scores.hit_at_1, scores.perr, scores.map_present) == (1.0, 1.0, 1.0, 1.0)


class MeanFrame:
    """Probabilities from the mean of a video's frames, so that they depend on which are looked at."""

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        sums = batch.features.double().sum(1)[:, :SMALL_CLASSES]
        return torch.sigmoid(sums / batch.num_frames[:, None] / 32 - 4).float()


@pytest.mark.parametrize("text", ["random:5", "sequence:3", "sample_all"])
def test_sampled_figures_depend_on_seed_and_round_alone(small_records, monkeypatch, text):
    data = open_dataset(small_records["validate"], SMALL_SPEC, SMALL_CLASSES, 12)
    sampling = parse_sampling(text)

    def figures(seed, round_number):
        return evaluate(MeanFrame(), data, CPU, SILENT, FrameDraw(sampling, seed, round_number)).compute().to_json()

    first = figures(0, 0)
    assert first["videos"] == 90
    assert figures(1, 0) != first
    assert figures(0, 1) != first
    monkeypatch.setattr("topgb.evaluation.predictions.EVALUATION_BATCH", 7)
    assert figures(0, 0) == pytest.approx(first, rel=1e-6)


def test_a_shuffled_mean_is_the_mean(small_records):
    data = _open(small_records["validate"])
    shuffled = evaluate(MeanFrame(), data, CPU, SILENT, FrameDraw(parse_sampling("shuffle"))).compute()
    assert shuffled.to_json() == pytest.approx(evaluate(MeanFrame(), data, CPU).compute().to_json(), rel=1e-6)


def test_rounds_give_mean_and_deviation(small_records):
    data, sampling = _open(small_records["validate"]), parse_sampling("random:2")
    found = evaluate_rounds(MeanFrame(), data, CPU, FrameDraw(sampling, seed=7), rounds=3)
    gaps = [
        evaluate(MeanFrame(), data, CPU, SILENT, FrameDraw(sampling, 7, number)).compute().gap for number in range(3)
    ]
    assert [scores.gap for scores in found.scores] == gaps
    assert len(set(gaps)) == 3
    assert found.mean().gap == pytest.approx(sum(gaps) / 3)
    assert found.deviation()["gap"] == pytest.approx(statistics.stdev(gaps))
    assert found.to_json()["rounds"] == [scores.to_json() for scores in found.scores]
    assert {**found.to_json(), "rounds": None} == {**found.mean().to_json(), "rounds": None}
    one = evaluate_rounds(MeanFrame(), data, CPU, FrameDraw(sampling, seed=7))
    assert one.to_json() == one.metrics.compute().to_json() == found.scores[0].to_json()


def test_more_frames_than_the_model_looks_at_cannot_be_drawn(small_records):
    with pytest.raises(InputError, match=r"'random:301' takes more frames .*is 300"):
        evaluate(MeanFrame(), _open(small_records["validate"]), CPU, SILENT, FrameDraw(parse_sampling("random:301")))


def test_unlabelled_records_cannot_be_scored(small_records):
    with pytest.raises(InputError, match="no labels.*topgb predict"):
        evaluate(Oracle(), _open(small_records["unlabelled"]), CPU)


def test_the_challenges_csv(small_records, tmp_path):
    path = tmp_path / "p.csv"
    assert write_predictions(Oracle(), _open(small_records["unlabelled"]), path, CPU) == 20
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["VideoId", "LabelConfidencePairs"]
    assert len(rows) == 21
    assert len({row[0] for row in rows}) == 21
    pairs = rows[1][1].split(" ")
    assert [int(c) for c in pairs[::2]] == list(range(SMALL_CLASSES))
    assert [float(p) for p in pairs[1::2]] == pytest.approx(torch.linspace(0.4, 0.1, SMALL_CLASSES).tolist(), rel=1e-5)
    with pytest.raises(InputError, match="force=True"):
        write_predictions(Oracle(), _open(small_records["unlabelled"]), path, CPU)


def _batch(*ids: str) -> Batch:
    return Batch(list(ids), torch.zeros(len(ids), 1, 40), torch.ones(len(ids), dtype=torch.int32))


class Fixed:
    """Gives every video the same probabilities."""

    def __init__(self, *probabilities: float):
        self.probabilities = torch.tensor(probabilities)

    def predict_batch(self, batch: Batch) -> torch.Tensor:
        return self.probabilities.expand(len(batch), -1)


def test_ids_are_quoted_where_they_must_be():
    plain = ["v1", "-", "a b", "é\\xff'", ""]
    odd = ["a,b", 'say "x"', "two\nlines", "a\rb", '",\n']
    rows = csv_rows([*plain, *odd], torch.tensor([0.25, 0.5]).expand(len(plain + odd), -1))
    assert rows[: len(plain)] == [f"{video},1 0.5 0 0.25\n" for video in plain]
    read = list(csv.reader(io.StringIO("".join(rows), newline="")))
    assert read == [[video, "1 0.5 0 0.25"] for video in plain + odd]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_probabilities_that_are_not_finite_are_refused(small_records, wrong):
    data = _open(small_records["validate"])
    first = next(evaluation_batches(data, 1)).ids[0]
    with pytest.raises(TopgbError, match=f"for video {first} are not finite") as caught:
        list(predictions(Fixed(*[0.5] * (SMALL_CLASSES - 1), wrong), data, CPU))
    assert caught.value.exit_code == 1


def test_a_gzipped_csv_holds_the_same_rows(small_records, tmp_path):
    data = _open(small_records["validate"])
    write_predictions(Oracle(), data, tmp_path / "p.csv", CPU)
    write_predictions(Oracle(), data, tmp_path / "p.csv.gz", CPU)
    assert gzip.decompress((tmp_path / "p.csv.gz").read_bytes()) == (tmp_path / "p.csv").read_bytes()


def test_a_failed_prediction_leaves_no_file(small_records, tmp_path):
    class Broken:
        calls = 0

        def predict_batch(self, batch: Batch) -> torch.Tensor:
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("out of memory")
            return Oracle().predict_batch(batch)

    with pytest.raises(RuntimeError):
        write_predictions(Broken(), _open(small_records["validate"]), tmp_path / "p.csv", CPU)
    assert list(tmp_path.iterdir()) == []


def test_per_class_csv(small_records, tmp_path):
    metrics = evaluate(Oracle(), _open(small_records["validate"]), CPU)
    config = parse_model({"aggregator": "average", "head": "logistic"})
    names = tuple(f"class {index}" for index in range(SMALL_CLASSES))
    header = Header(SMALL_SPEC, SMALL_CLASSES, (Member(1.0, config),), {}, names)
    write_per_class(tmp_path / "c.csv", metrics, header)
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(names)
    assert [int(row["positives"]) for row in rows] == metrics.positives.tolist()
    assert {row["average_precision"] for row in rows if int(row["positives"])} == {"1.000000"}

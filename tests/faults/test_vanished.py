"""Input that goes away, or becomes another, while it is being used: one sentence, and no output."""

import pytest
import torch

from cli.program import topgb
from faults.commands import CLASSES, SPEC
from topgb.errors import InputError
from topgb.evaluation.distill import distill, open_records
from topgb.evaluation.opening import open_for
from topgb.evaluation.predict import write_predictions
from topgb.modelfile import load
from topgb.quantizing import quantize
from topgb.records.dataset import open_dataset
from topgb.records.sampling import parse_sampling
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.records.training_batches import TrainingBatches, load_batches

CPU = torch.device("cpu")
# More than stay open, so that those after the first, whose bytes are looked at when all are open, are opened again.
SHARDS = 70


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "shards"
    write_synthetic(folder, SPEC, CLASSES, 4 * SHARDS, SynthOptions(videos_per_shard=4, frames=(2, 3), prefix="r"))
    return folder


def _remove(path):
    path.unlink()


def _shorten(path):
    write_synthetic(path.parent, SPEC, CLASSES, 1, SynthOptions(frames=(2, 3), prefix="short"))
    (path.parent / "short0000.tfrecord").replace(path)


@pytest.mark.parametrize(
    ("fault", "words"), [(_remove, "No such file or directory"), (_shorten, "holds 1 records, 4 when it was opened")]
)
def test_a_shard(fault, words, inputs, shards, tmp_path):
    pattern, model = str(shards / "r*.tfrecord"), load(inputs.model)
    predicting, distilling = open_for(model, pattern, with_labels=False), open_records(model, pattern)
    training = open_dataset(pattern, SPEC, CLASSES, 300)
    fault(shards / "r0001.tfrecord")
    with pytest.raises(InputError, match=words):
        write_predictions(model, predicting, tmp_path / "p.csv.gz", CPU)
    with pytest.raises(InputError, match=words):
        distill(model, distilling, tmp_path / "scores", CPU, {})
    for workers in (0, 2):
        batches = TrainingBatches(training, 50, 0, parse_sampling("all"))
        with pytest.raises(InputError, match=words):
            list(load_batches(batches, range(batches.steps_per_epoch), workers))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores", "shards"]
    # The shard before it is finished, and kept.
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        "r0000.tfrecord.safetensors",
        "teacher.json",
    ]


def test_a_shard_that_is_mapped_stays_readable(inputs, shards, tmp_path):
    model = load(inputs.model)
    predicting = open_for(model, str(shards / "r000*.tfrecord"), with_labels=False)
    (shards / "r0009.tfrecord").unlink()
    assert write_predictions(model, predicting, tmp_path / "p.csv", CPU) == 40


def test_the_model_file(inputs, tmp_path, monkeypatch):
    model = tmp_path / "model.safetensors"
    model.write_bytes(inputs.model.read_bytes())
    encode = quantize.quantize

    def encode_and_remove(*arguments):
        model.unlink()
        return encode(*arguments)

    monkeypatch.setattr(quantize, "quantize", encode_and_remove)
    done = topgb("model", "quantize", model, "--out", tmp_path / "q.safetensors", "--method", "int8")
    assert done.returncode == 1
    assert done.stderr.startswith(f"topgb: {model}: No such file or directory; ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

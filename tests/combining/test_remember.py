"""Models that remember videos: what they store, what they find, and how they are kept."""

from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import AUDIO, DBOF, model_file, videos
from conftest import SMALL_CLASSES
from export_both import export_both, run_exported
from topgb.combining.average import average
from topgb.combining.ensemble import ensemble
from topgb.combining.remember import NeighbourOptions, remember
from topgb.errors import InputError
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.modelfile import read_model_file
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.dataset import evaluation_batches
from topgb.training.loop import TrainingJob, train
from topgb.training.recipe import load_recipe

CPU = torch.device("cpu")
MLP = {**DBOF, "head": {"name": "mlp", "width": 24, "activation": "silu", "input_dropout": 0.2, "dropout": 0.4}}


def remembering(small_records, folder):
    """A model with a hidden layer, and the one that remembers the training records by it."""
    path = model_file(folder / "m.safetensors", MLP)
    remember(path, small_records["train"], folder / "r.safetensors", NeighbourOptions(neighbours=7, temperature=0.1))
    return path, folder / "r.safetensors"


@pytest.fixture
def memory(small_records, tmp_path):
    return remembering(small_records, tmp_path)


def hidden_vectors(path, data):
    tagger = topgb.load(path, resident="full").members[0]
    found = []
    for batch in evaluation_batches(data, 64):
        pooled = tagger.aggregator(*tagger.frontend(batch.features, batch.num_frames))
        found.append(tagger.head.hidden_vectors(pooled))
    return torch.cat(found)


@torch.inference_mode()
def test_it_predicts_the_labels_of_the_most_alike_videos(memory, small_records):
    path, remembering = memory
    model = topgb.load(remembering)
    train_data, held_out = open_for(model, small_records["train"]), open_for(model, small_records["validate"])
    stored, asked = hidden_vectors(path, train_data), hidden_vectors(path, held_out)
    labels = torch.cat([batch.labels for batch in evaluation_batches(train_data, 64)])
    centre = stored.mean(0)
    cosine = torch.nn.functional.cosine_similarity((asked - centre)[:, None], (stored - centre)[None], dim=2)
    found = torch.cat([model.predict_batch(batch) for batch in evaluation_batches(held_out, 64)])
    for video in range(len(asked)):
        nearest = cosine[video].argsort(descending=True)[:7]
        shares = torch.softmax(cosine[video, nearest] / 0.1, dim=0)
        torch.testing.assert_close(found[video], shares @ labels[nearest].float(), atol=1e-5, rtol=1e-4)


def test_a_stored_video_finds_itself(small_records, tmp_path):
    path = model_file(tmp_path / "m.safetensors", MLP)
    remember(path, small_records["train"], tmp_path / "r.safetensors", NeighbourOptions(neighbours=1))
    model = topgb.load(tmp_path / "r.safetensors")
    scores = evaluate(model, open_for(model, small_records["train"]), CPU).compute()
    assert scores.gap == pytest.approx(1.0)


@pytest.mark.parametrize("section", [DBOF, AUDIO, {**MLP, "head": "logistic"}], ids=["dbof", "audio", "logistic"])
def test_other_heads_compare_what_they_see(section, small_records, tmp_path):
    path = model_file(tmp_path / "m.safetensors", section)
    header = remember(path, small_records["train"], tmp_path / "r.safetensors")
    assert header.members[0].model.head_options.neighbours == 50
    model = topgb.load(tmp_path / "r.safetensors")
    assert model.predict(videos()).max() <= 1.0
    kept = {name for name in header.tensors if name.startswith("members.0.aggregator")}
    assert kept == {name for name in read_model_file(path)[0].tensors if name.startswith("members.0.aggregator")}


def test_whole_numbers_stay_whole_however_the_rest_is_stored(memory, small_records, tmp_path):
    path, remembering = memory
    before = read_model_file(remembering)[1]
    for method in ("int4", "kmeans", "entropy", "float16"):
        quantize_file(remembering, tmp_path / method, QuantizeOptions(method, min_elements=10))
        header, after = read_model_file(tmp_path / method)
        assert header.tensors["members.0.head.keys.weight"].encoding not in ("float32", "int32")
        for name in ("label_bounds", "label_classes"):
            assert torch.equal(after[f"members.0.head.{name}"], before[f"members.0.head.{name}"])
        assert np.isfinite(topgb.load(tmp_path / method).predict(videos())).all()
    ensemble([path, remembering], [0.75, 0.25], tmp_path / "e")
    expected = 0.75 * topgb.load(path).predict(videos()) + 0.25 * topgb.load(remembering).predict(videos())
    np.testing.assert_allclose(topgb.load(tmp_path / "e").predict(videos()), expected, atol=1e-6)


@pytest.fixture(scope="module")
def exported(small_records, tmp_path_factory) -> Path:
    pytest.importorskip("onnxruntime")
    path = remembering(small_records, tmp_path_factory.mktemp("exported"))[1]
    export_both(path)
    return path


@pytest.mark.numeric
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_it_is_exported(exported, to):
    found = run_exported(exported, to, videos(), np.full(9, 6, np.int64))
    np.testing.assert_allclose(found, topgb.load(exported).predict(videos()), atol=1e-5)


def test_models_and_records_that_do_not_fit_are_refused(memory, small_records, small_recipe, tmp_path):
    path, remembering = memory
    with pytest.raises(InputError, match="remembers already"):
        remember(remembering, small_records["train"], tmp_path / "x")
    ensemble([path, path], None, tmp_path / "two")
    with pytest.raises(InputError, match="has 2 members; videos are compared by one alone"):
        remember(tmp_path / "two", small_records["train"], tmp_path / "x")
    with pytest.raises(InputError, match="hold no labels .*nothing to remember"):
        remember(path, small_records["unlabelled"], tmp_path / "x")
    with pytest.raises(InputError, match="remembers videos, which have no mean"):
        average([remembering, remembering], tmp_path / "x")
    head = "model.head={name: neighbours, videos: 3, labels: 4, most_labels: 2}"
    job = TrainingJob(load_recipe(str(small_recipe), [head]), small_records["train"], tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="'neighbours' is not trained; topgb model remember"):
        train(job)
    assert not (tmp_path / "x").exists()
    assert topgb.load(remembering).header.classes == SMALL_CLASSES


def test_hostile_numbers_read_no_other_memory(memory, tmp_path):
    from topgb.modelfile import write_model_file

    header, tensors = read_model_file(memory[1])
    for name, value in (("label_bounds", -(2**31)), ("label_bounds", 2**31 - 1), ("label_classes", 2**31 - 1)):
        broken = dict(tensors)
        broken[f"members.0.head.{name}"] = torch.full_like(tensors[f"members.0.head.{name}"], value)
        write_model_file(tmp_path / "b", header, broken, force=True)
        found = topgb.load(tmp_path / "b").predict(videos())
        assert ((found >= 0) & (found <= 1)).all()

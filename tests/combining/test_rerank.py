"""Second stages: learned from scores, stored in the file, and in the way of nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from combining.small_models import model_file, videos
from conftest import SMALL_CLASSES, SMALL_SPEC
from export_both import export_both, run_exported
from topgb.combining.average import average
from topgb.combining.cooccurrence import class_vectors
from topgb.combining.ensemble import ensemble
from topgb.combining.rerank import RerankTraining, fit_reranker, rerank
from topgb.combining.top_classes import TopClasses
from topgb.errors import InputError
from topgb.evaluation.distill import DistillOptions, distill, open_records, open_teacher
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.modelfile import read_model_file
from topgb.modelfile.describe import describe
from topgb.models.reranker import Reranker, RerankerOptions
from topgb.quantizing.quantize import QuantizeOptions, quantize_file
from topgb.records.synth import SynthOptions, write_synthetic

CPU = torch.device("cpu")
CLASSES = 24
OPTIONS = RerankerOptions(candidates=20, embedding=8, width=16)
QUICK = RerankTraining(OPTIONS, epochs=6)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of 24 classes, labelled records, and its scores of them."""
    folder = tmp_path_factory.mktemp("rerank")
    write_synthetic(folder / "data", SMALL_SPEC, CLASSES, 300, SynthOptions(videos_per_shard=160, frames=(2, 5)))
    path = model_file(folder / "m.safetensors", classes=CLASSES)
    model, identity = open_teacher(path, CPU)
    for name, pattern in (("first", "train0000*"), ("second", "train0001*")):
        distill(model, open_records(model, f"{folder}/data/{pattern}"), folder / name, CPU, identity)
    distill(model, open_records(model, f"{folder}/data/*"), folder / "few", CPU, identity, DistillOptions(top_k=10))
    return folder


def second_stage(made, out, **options):
    wanted = {"training": QUICK, **options}
    return rerank(made / "m.safetensors", f"{made}/data/*", [made / "first", made / "second"], out, **wanted)


def dependent(count, seed):
    """TopClasses of which class 1 is right exactly where class 0 is a candidate too, whatever its probability says."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.stack([torch.randperm(6, generator=generator)[:3] for _ in range(count)])
    best = torch.rand(count, 3, generator=generator).sort(dim=1, descending=True).values
    labels = [[1] if {0, 1} <= set(row.tolist()) else [] for row in classes]
    return TopClasses(best, classes, labels, 6)


def test_what_depends_on_other_candidates_is_learned():
    options = RerankerOptions(candidates=3, embedding=8, width=16, dropout=0.0)
    model = fit_reranker(dependent(2000, 0), RerankTraining(options, epochs=30, learning_rate=5e-3))
    unseen = dependent(400, 1)
    with torch.no_grad():
        new = torch.sigmoid(model.logits(unseen.best, unseen.classes))
    right = (new > 0.5) == unseen.hits().bool()
    assert right.float().mean() > 0.97
    assert ((unseen.best > 0.5) == unseen.hits().bool()).float().mean() < 0.7


def test_before_training_nothing_changes():
    probabilities = torch.rand(5, 9)
    torch.testing.assert_close(Reranker(9, RerankerOptions(candidates=4)).eval()(probabilities), probabilities)


def test_a_video_does_not_depend_on_its_batch_and_only_candidates_change():
    torch.manual_seed(0)
    model = Reranker(9, RerankerOptions(candidates=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        probabilities = torch.rand(5, 9)
        together = model(probabilities)
        torch.testing.assert_close(torch.cat([model(row[None]) for row in probabilities]), together)
    assert ((together != probabilities).sum(1) == 4).all()


def test_vectors_of_classes_that_occur_together_are_alike():
    labels = [[0, 1], [2, 3], [0, 1, 4], [2, 3], [4]] * 10
    vectors = class_vectors(labels, 6, 4)
    cosine = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=2)
    assert cosine[0, 1] > 0.9
    assert cosine[2, 3] > 0.9
    assert abs(cosine[0, 2]) < 0.3
    assert torch.equal(class_vectors([[]], 6, 4), torch.zeros(6, 4))
    assert class_vectors(labels, 3 + 3, 20).shape == (6, 20)


def test_the_file_predicts_the_second_stage_of_its_mixture(made, tmp_path):
    gain = second_stage(made, tmp_path / "r.safetensors")
    assert gain.before.videos == gain.after.videos == 30
    first, both = topgb.load(made / "m.safetensors"), topgb.load(tmp_path / "r.safetensors")
    mixture = torch.from_numpy(first.predict(videos()))
    np.testing.assert_allclose(both.predict(videos()), both.reranker(mixture).numpy(), atol=1e-6)
    assert np.abs(both.predict(videos()) - mixture.numpy()).max() > 1e-3
    header, tensors = read_model_file(tmp_path / "r.safetensors")
    assert header.reranker == OPTIONS
    assert header.origin["gain"] == {"before": gain.before.gap, "after": gain.after.gap}
    assert '"version":1' in read_model_file(made / "m.safetensors")[0].dumps()
    assert '"version":2' in header.dumps()
    assert "second stage" in describe(header, tensors, 1)
    scores = evaluate(both, open_for(both, f"{made}/data/*"), CPU).compute()
    assert scores.videos == 300


def test_the_same_command_gives_the_same_bytes_and_the_random_state_stays(made, tmp_path):
    state = torch.random.get_rng_state()
    second_stage(made, tmp_path / "a")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    second_stage(made, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    # A second one takes the place of the first.
    rerank(tmp_path / "a", f"{made}/data/*", [made / "first", made / "second"], tmp_path / "c", QUICK)
    one, two = read_model_file(tmp_path / "b"), read_model_file(tmp_path / "c")
    assert one[1].keys() == two[1].keys()
    assert all(torch.equal(value, two[1][name]) for name, value in one[1].items())


def test_other_commands_keep_or_refuse_it(made, tmp_path):
    path = tmp_path / "r.safetensors"
    second_stage(made, path)
    quantize_file(path, tmp_path / "q.safetensors", QuantizeOptions("float16", min_elements=10))
    header, tensors = read_model_file(tmp_path / "q.safetensors")
    assert header.reranker == OPTIONS
    assert {e.encoding for name, e in header.tensors.items() if name.startswith("members.") and len(e.shape) > 1} == {
        "float16"
    }
    before = read_model_file(path)[1]
    assert all(torch.equal(tensors[name], value) for name, value in before.items() if name.startswith("reranker."))
    for merge in (average, lambda paths, out: ensemble(paths, None, out)):
        with pytest.raises(InputError, match="has a second stage, made for the mixture of its own members"):
            merge([path, path], tmp_path / "x")


@pytest.fixture(scope="module")
def exported(made) -> Path:
    pytest.importorskip("onnxruntime")
    path = made / "exported.safetensors"
    second_stage(made, path)
    export_both(path)
    return path


@pytest.mark.numeric
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_it_is_exported(exported, to):
    found = run_exported(exported, to, videos(), np.full(9, 6, np.int64))
    np.testing.assert_allclose(found, topgb.load(exported).predict(videos()), atol=2e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"options": RerankerOptions(candidates=19)}, "from 20 to 24"),
        ({"options": RerankerOptions(candidates=25)}, "from 20 to 24"),
        ({"scores": []}, "learns from scores"),
        ({"scores": ["first"]}, "no scores for video"),
        ({"scores": ["few"]}, "keeps 10 classes of a video, fewer than the 20"),
    ],
)
def test_what_does_not_fit_is_refused(made, tmp_path, change, words):
    wanted = {"scores": ["first", "second"], "options": OPTIONS, **change}
    folders = [made / name for name in wanted.pop("scores")]
    with pytest.raises(InputError, match=words):
        rerank(
            made / "m.safetensors", f"{made}/data/*", folders, tmp_path / "x", replace(QUICK, options=wanted["options"])
        )
    assert not (tmp_path / "x").exists()


def test_other_classes_and_missing_labels_are_refused(made, small_records, tmp_path):
    small = model_file(tmp_path / "small.safetensors")
    assert SMALL_CLASSES < 20
    with pytest.raises(InputError, match="cannot look at 20 classes"):
        rerank(small, small_records["train"], [made / "first"], tmp_path / "x", QUICK)
    model, identity = open_teacher(made / "m.safetensors", CPU)
    distill(model, open_records(model, small_records["unlabelled"]), tmp_path / "scores", CPU, identity)
    with pytest.raises(InputError, match="has no labels to learn from"):
        rerank(made / "m.safetensors", small_records["unlabelled"], [tmp_path / "scores"], tmp_path / "x", QUICK)

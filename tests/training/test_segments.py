"""Training on segments: only rated pairs count, negatives are mined where nothing is known, runs say what they saw."""

import numpy as np
import pytest
import torch

import topgb
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import InputError
from topgb.evaluation.metrics import cross_entropy
from topgb.modelfile import read_model_file
from topgb.records.sampling import EVERY_FRAME
from topgb.records.segment_dataset import SegmentCut, open_segments
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.initial_weights import _frequencies
from topgb.training.losses import weighted_cross_entropy

RECIPE = {
    "data": {
        "level": "frame",
        "features": [{"name": each.name, "size": each.size} for each in SMALL_SPEC.features],
        "classes": SMALL_CLASSES,
    },
    "model": {"aggregator": "average", "head": {"name": "logistic"}, "max_frames": 40},
    "training": {"batch_size": 16, "epochs": 2},
    "optimizer": {"learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    options = SynthOptions(videos_per_shard=16, frames=(23, 44), segments=4)
    write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 40, options)
    return str(folder)


def _all(dataset, seed=0, epoch=0):
    keys = [dataset.key(number) for number in range(dataset.num_records)]
    return dataset.read_drawn(keys, EVERY_FRAME, seed, epoch)[0]


@pytest.mark.numeric
def test_unknown_pairs_have_no_gradient():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(6, 5, generator=generator).requires_grad_()
    labels = torch.rand(6, 5, generator=generator) < 0.5
    weights = (torch.rand(6, 5, generator=generator) < 0.4).float()
    weighted_cross_entropy(weights)(probabilities, labels).backward()
    assert not probabilities.grad[weights == 0].any()
    assert probabilities.grad[weights > 0].all()
    ones = weighted_cross_entropy(torch.ones(6, 5))(probabilities, labels)
    # The same terms; the products with 1 are exact.
    assert ones.item() == pytest.approx(cross_entropy(probabilities, labels).item(), rel=1e-6)


def test_a_fresh_head_starts_at_the_shares_of_ratings(records):
    dataset = open_segments(records, SMALL_SPEC, SMALL_CLASSES, SegmentCut())
    batch = _all(dataset)
    rated, found = (batch.weights > 0).sum(0), batch.labels.sum(0)
    # The records rate every class; the last one here is one that they do not know.
    wider = open_segments(records, SMALL_SPEC, SMALL_CLASSES + 1, SegmentCut())
    frequencies = _frequencies(wider, 0.0)
    assert rated.min() > 0
    torch.testing.assert_close(frequencies[:-1], ((found + 0.5) / (rated + 1)).float())
    assert frequencies[-1] < 0.01


def test_rows_are_cut_from_their_videos(records):
    videos = {}
    from topgb.records.dataset import evaluation_batches, open_dataset

    for batch in evaluation_batches(open_dataset(records, SMALL_SPEC, SMALL_CLASSES, 300), 8):
        for video, features, count in zip(batch.ids, batch.features, batch.num_frames, strict=True):
            videos[video] = features[: int(count)].clone()
    dataset = open_segments(records, SMALL_SPEC, SMALL_CLASSES, SegmentCut("every", context=2, whole=3))
    batch = _all(dataset)
    assert len(batch) == sum(len(frames) // 5 for frames in videos.values())
    for name, features in zip(batch.ids, batch.features, strict=True):
        video, start = name.rsplit(":", 1)
        frames, first = videos[video], int(start)
        last = len(frames) - 1
        rows = [*range(first, first + 5), *range(first - 2, first), *range(first + 5, first + 7)]
        rows += [int((part + 0.5) / 3 * len(frames)) for part in range(3)]
        assert torch.equal(features, frames[[min(max(row, 0), last) for row in rows]])


def test_mined_negatives_are_of_neither_the_video_nor_its_segments(records):
    cut = SegmentCut(mined_negatives=3, video_labels=0.25)
    dataset = open_segments(records, SMALL_SPEC, SMALL_CLASSES, cut)
    plain = _all(open_segments(records, SMALL_SPEC, SMALL_CLASSES, SegmentCut()))
    first, again, later = _all(dataset), _all(dataset), _all(dataset, epoch=1)
    assert torch.equal(first.weights, again.weights)
    assert not torch.equal(first.weights, later.weights)
    assert not bool((plain.labels & (plain.weights == 0)).any())
    rated = plain.weights > 0
    assert torch.equal(first.labels[rated], plain.labels[rated])
    assert bool((first.weights[rated] == 1).all())
    weak = first.weights == 0.25
    assert weak.any()
    assert bool(first.labels[weak].all())
    mined = (first.weights == 1) & ~rated
    assert not bool(first.labels[mined].any())
    assert 1 <= int(mined.sum(1).max()) <= 3
    positives = {}
    for name, labels in zip(first.ids, first.labels, strict=True):
        video = name.rsplit(":", 1)[0]
        positives[video] = positives.get(video, torch.zeros(SMALL_CLASSES, dtype=torch.bool)) | labels
    for name, drawn in zip(first.ids, mined, strict=True):
        assert not bool((drawn & positives[name.rsplit(":", 1)[0]]).any())


def test_two_steps_and_the_model_file_says_so(records, tmp_path):
    topgb.train(RECIPE, records, tmp_path / "videos", progress=False)
    segments = RECIPE | {
        "model": RECIPE["model"] | {"aggregator": "average"},
        "segments": {"context": 2, "whole": 4, "mined_negatives": 2, "video_labels": 0.1},
    }
    found = topgb.train(
        segments, records, tmp_path / "run", init_from=tmp_path / "videos/model.safetensors", validate=records,
        progress=False,
    )  # fmt: skip
    assert 0 < found.validation.gap <= 1
    entry = read_model_file(found.model)[0].extras["segments"]
    rated = open_segments(records, SMALL_SPEC, SMALL_CLASSES, SegmentCut()).rated_classes.tolist()
    assert entry == {"frames": 5, "context": 2, "whole": 4, "classes": rated}
    assert topgb.evaluate(tmp_path / "run", records, segments=True, progress=False).scores.map_at_k > 0
    twice = topgb.ensemble([found.model, found.model], tmp_path / "two.safetensors")
    assert read_model_file(twice.path)[0].extras["segments"] == entry
    assert "segments" not in read_model_file(tmp_path / "videos/model.safetensors")[0].extras


def test_a_step_of_unrated_rows_learns_the_labels_of_videos(records, tmp_path):
    spread = RECIPE | {"segments": {"rows": "every"}}
    found = topgb.train(spread, records, tmp_path / "run", progress=False)
    assert read_model_file(found.model)[0].extras["segments"] == {"frames": 5, "context": 0, "whole": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"training": {"loss": "hinge"}}, "cross entropy"),
        ({"training": {"frames": "random:5"}}, "training.frames"),
        ({"segments": {"context": 30}}, "has 65 frames"),
        ({"segments": {"rows": "every", "mined_negatives": 2}}, "go with rated segments"),
    ],
)
def test_what_does_not_go_with_segments_is_refused(records, tmp_path, change, said):
    with pytest.raises(InputError, match=said):
        topgb.train(RECIPE | {"segments": {}} | change, records, tmp_path / "run", progress=False)
    assert not np.any([path.name == "model.safetensors" for path in tmp_path.rglob("*")])

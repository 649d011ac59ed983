"""A learner that goes on from a checkpoint makes the same bits, with gradients kept as factors too."""

import pytest
import torch
from lightning_fabric import Fabric

from topgb.batch import Batch
from topgb.models import build_tagger, factored
from topgb.models.factored import FactoredLinear
from topgb.training.learner import Learner
from topgb.training.recipe import Recipe
from training.uneven_ranks import CLASSES, FRAMES, SPEC, recipe_of

VIDEOS = torch.tensor(4)


def _learner(recipe: Recipe, precision: str, seed: int) -> Learner:
    torch.manual_seed(seed)
    tagger = build_tagger(SPEC, CLASSES, recipe.model_section()).train()
    return Learner(recipe, tagger, Fabric(accelerator="cpu", devices=1, precision=precision))


def _train(learner: Learner, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        features = torch.randint(0, 256, (4, FRAMES, SPEC.width), dtype=torch.uint8, generator=random)
        labels = torch.rand(4, CLASSES, generator=random) < 0.4
        counts = torch.full((4,), FRAMES, dtype=torch.int32)
        learner.update(Batch(["a", "b", "c", "d"], features, counts, labels), step, 0.01, VIDEOS)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("case", ["netvlad-moe", "gated_dbof-mlp"])
def test_a_resumed_learner_has_the_same_bits(case, precision, monkeypatch, one_thread):
    monkeypatch.setattr(factored, "LEAST_VALUES", 1)
    recipe = recipe_of(case)
    through, first = (_learner(recipe, precision, 0) for _ in range(2))
    assert [layer for layer in through.tagger.modules() if isinstance(layer, FactoredLinear)]
    _train(through, range(3))
    _train(first, range(2))
    # Other weights at first: all that counts comes from the checkpoint.
    resumed = _learner(recipe, precision, 1)
    resumed.restore(first.checkpoint({}))
    _train(resumed, range(2, 3))
    expected, found = through.checkpoint({}), resumed.checkpoint({})
    for kind in ("weights", "optimizer"):
        after, before = getattr(found, kind), getattr(expected, kind)
        assert after.keys() == before.keys()
        assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []

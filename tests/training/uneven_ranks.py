"""Updates of small models on uneven batches, run by the tests in one process and under torchrun in two.

As a program: `uneven_ranks.py FOLDER` writes each rank's weights and moments after each case to FOLDER.
"""

import sys
from pathlib import Path

import torch

from topgb.batch import Batch
from topgb.features import Feature, FeatureSpec
from topgb.models import build_tagger
from topgb.models.registry import aggregators, heads
from topgb.tensors import save_tensors
from topgb.training.learner import Learner
from topgb.training.ranks import agree, launch
from topgb.training.recipe import Recipe, parse_recipe

SPEC = FeatureSpec("frame", (Feature("rgb", 16), Feature("audio", 8)))
CLASSES = 5
VIDEOS, FRAMES = 4, 6
# Videos of each rank, by the update.
EMPTY_SECOND, EMPTY_FIRST, UNEVEN = (VIDEOS, 0), (0, VIDEOS), (VIDEOS - 1, 1)
# So small that a full step of Adam on the rounding of a zero gradient moves nothing.
RATE = 1e-6
SIZES = {"clusters": 4, "hidden": 8, "cells": 8, "width": 8}


def _section(aggregator: str, head: str, mixture: int = 1) -> dict:
    chosen = aggregators()[aggregator], heads()[head]
    own, of_head = ({k: v for k, v in SIZES.items() if k in cls.Options.model_fields} for cls in chosen)
    dropout = {"dropout": 0.0} if "dropout" in chosen[0].Options.model_fields else {}
    return {"aggregator": aggregator, **own, **dropout, "mixture": mixture, "head": {"name": head, **of_head}}


TRAINED = [name for name, head in heads().items() if getattr(head, "trained", True)]
PAIRS = [*((name, "mlp") for name in aggregators()), *(("netvlad", name) for name in TRAINED)]
# The model, the training options, and how many videos each rank has at each update.
CASES = {
    **{f"{a}-{h}": (_section(a, h), {}, [EMPTY_SECOND, EMPTY_FIRST]) for a, h in PAIRS},
    "mixture": (_section("netvlad", "moe", mixture=3), {}, [EMPTY_SECOND, EMPTY_FIRST]),
    "teacher": (_section("netvlad", "moe"), {"distill_weight": 0.5}, [EMPTY_SECOND, EMPTY_FIRST]),
    "hinge": (_section("netvlad", "moe"), {"loss": "hinge"}, [EMPTY_SECOND, EMPTY_FIRST]),
    "softmax": (_section("netvlad", "moe"), {"loss": "softmax"}, [EMPTY_SECOND, EMPTY_FIRST]),
    # Without batch norm, pieces add up to the whole batch.
    "pieces": (_section("average", "moe"), {"accumulate": 8}, [UNEVEN, EMPTY_SECOND]),
    "pieces with batch norm": (_section("netvlad", "mlp"), {"accumulate": 8}, [UNEVEN, EMPTY_SECOND]),
}


def recipe_of(case: str) -> Recipe:
    model, training, _ = CASES[case]
    features = [{"name": feature.name, "size": feature.size} for feature in SPEC.features]
    return parse_recipe(
        {
            "data": {"level": "frame", "features": features, "classes": CLASSES},
            "model": model,
            "training": training,
            "optimizer": {"learning_rate": 0.01},
        }
    )


def _videos(update: int, own: slice, teacher: bool) -> Batch:
    """The videos `own` of those of `update`."""
    random = torch.Generator().manual_seed(update)
    features = torch.randint(0, 256, (VIDEOS, FRAMES, SPEC.width), dtype=torch.uint8, generator=random)
    counts = torch.randint(1, FRAMES + 1, (VIDEOS,), dtype=torch.int32, generator=random)
    labels = torch.rand(VIDEOS, CLASSES, generator=random) < 0.4
    scores = torch.rand(VIDEOS, CLASSES, generator=random).half() if teacher else None
    ids = [str(number) for number in range(VIDEOS)]
    return Batch(ids[own], features[own], counts[own], labels[own], None if scores is None else scores[own])


def states(case: str, fabric, alone: bool) -> dict[str, torch.Tensor]:
    """Weights, statistics and moments by name and update. `alone`: of one process that holds all ranks' videos."""
    recipe, (_, _, updates) = recipe_of(case), CASES[case]
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, recipe.model_section()).train()
    learner = Learner(recipe, tagger, fabric)
    found = {}
    for number, (first, _) in enumerate(updates):
        own = slice(None) if alone else [slice(0, first), slice(first, None)][fabric.global_rank]
        batch = _videos(number, own, "distill_weight" in CASES[case][1])
        learner.update(batch, number, RATE, agree(fabric, len(batch), due=False, stopping=False).videos)
        checkpoint = learner.checkpoint({})
        for name, tensor in (checkpoint.weights | checkpoint.optimizer).items():
            found[f"{number} {name}"] = tensor.clone()
    return found


def main(folder: Path) -> None:
    fabric = launch(torch.device("cpu"), None, None, "32-true")
    for case in CASES:
        save_tensors(folder / f"{case} {fabric.global_rank}.safetensors", states(case, fabric, alone=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

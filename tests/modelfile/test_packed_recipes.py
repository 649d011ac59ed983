"""Recipes' models in every kind of encoding: packed they predict nearly what their weights, taken exactly, predict.

docs/export.md states the bound, and benchmarks/inference.py takes it.
"""

import numpy as np
import pytest
import torch

import topgb
from topgb.modelfile import Header, Member, packed_linear, write_model_file
from topgb.modelfile.integer_products import integers_are_exact
from topgb.modelfile.member import encode_member
from topgb.modelfile.packed_linear import COUNTED_ROWS, LEAST_WEIGHTS, STREAMED_ROWS, PackedLinear
from topgb.models import build_tagger
from topgb.quantizing.schemes import Scheme, encode
from topgb.training.recipe import load_recipe

pytestmark = pytest.mark.numeric

# Random weights give probabilities near 0.5, which move most. Rounding inputs and products to bfloat16 moves those of a
# small batch, rounding weights to int8 once more those of any.
ROUNDING, SUMMATION = 6e-3, 2e-5
EXACT = {"int8": Scheme("int8"), "int8_zlib": Scheme("entropy", step=0.001), "uniform": Scheme("uniform")}
ROUNDED = {"kmeans": Scheme("kmeans"), "groups": Scheme("groups", 4)}
# One of each family that has a layer of 2^20 weights.
RECIPES = (
    "audioset-attention", "audioset-average", "audioset-dbof", "audioset-gated-dbof", "audioset-mix-nextvlad",
    "audioset-netfv", "audioset-nextvlad", "audioset-soft-dbof", "own-frames", "yt8m-video",
)  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
def test_packed_weights_move_probabilities_little(recipe, tmp_path, monkeypatch):
    loaded = load_recipe(recipe)
    spec, classes, config = loaded.data.spec(), loaded.data.classes, loaded.model_section()
    torch.manual_seed(0)
    stored = encode_member(0, build_tagger(spec, classes, config).state_dict())
    random = np.random.default_rng(0)
    shape = (STREAMED_ROWS + 1, config.max_frames if spec.level == "frame" else 1, spec.width)
    features = random.integers(0, 256, shape, np.uint8) if spec.all_bytes else random.normal(size=shape)
    features = features.astype(np.uint8 if spec.all_bytes else np.float32)
    for name, scheme in (EXACT | ROUNDED).items():
        entries, tensors = dict(stored[0]), dict(stored[1])
        for key, entry in stored[0].items():
            if len(entry.shape) == 2 and np.prod(entry.shape) >= LEAST_WEIGHTS:
                entries[key], parts = encode(tensors.pop(key), scheme)
                tensors |= {key + suffix: part for suffix, part in parts.items()}
        path = tmp_path / f"{name}.safetensors"
        write_model_file(path, Header(spec, classes, (Member(1.0, config),), entries), tensors)
        packed, full = (topgb.load(path, resident=resident) for resident in ("packed", "full"))
        assert any(isinstance(module, PackedLinear) for module in packed.loaded.modules())
        exact = full.predict(features)
        for batch in (COUNTED_ROWS, len(features)):
            most = SUMMATION if name in EXACT and batch > STREAMED_ROWS else ROUNDING
            found = packed.predict(features[:batch])
            np.testing.assert_allclose(found, exact[:batch], rtol=0, atol=most, err_msg=name)
        if integers_are_exact():
            with monkeypatch.context() as there:
                there.setattr(packed_linear, "integers_are_faster", lambda: True)
                found = topgb.load(path).predict(features[:COUNTED_ROWS])
            most = SUMMATION if name in EXACT else ROUNDING
            np.testing.assert_allclose(found, exact[:COUNTED_ROWS], rtol=0, atol=most, err_msg=f"{name} in integers")

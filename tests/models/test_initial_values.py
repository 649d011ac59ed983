import subprocess
import sys

import pytest
import torch
from torch import nn

from topgb.errors import InputError
from topgb.models.byfeature import ByFeature, set_child
from topgb.models.initial_values import Embedding, normal, normal_, unfilled

BUILD_EVERY_MODEL = """
import sys
import torch
from topgb.features import Feature, FeatureSpec
from topgb.models import build_tagger, parse_model
from topgb.models.initial_values import unfilled
from topgb.models.registry import aggregators, heads
from topgb.models.reranker import Reranker, RerankerOptions

def check(what, build):
    assert all(tensor.is_meta for tensor in unfilled(build, "").state_dict().values()), what
    assert "sympy" not in sys.modules, f"{what} imports PyTorch's compiler: draw its values by models/initial_values.py"

SPEC = FeatureSpec("frame", (Feature("rgb", 24), Feature("audio", 8)))
check("the second stage", lambda: Reranker(7, RerankerOptions()))
for aggregator in aggregators():
    for head in heads():
        sizes = {"videos": 9, "labels": 20, "most_labels": 5} if head == "neighbours" else {}
        section = {"aggregator": aggregator, "mixture": 2, "head": {"name": head, **sizes}}
        check(f"{aggregator} with {head}", lambda: build_tagger(SPEC, 7, parse_model(section)))
"""


def test_no_architecture_calculates_values_on_the_meta_device():
    subprocess.run([sys.executable, "-c", BUILD_EVERY_MODEL], check=True)


def test_values_are_those_that_pytorch_draws():
    torch.manual_seed(1)
    expected = 1.0 + torch.randn(5, 7) * 0.3
    torch.manual_seed(1)
    assert torch.equal(normal(5, 7, std=0.3, mean=1.0), expected)

    torch.manual_seed(2)
    expected = nn.init.normal_(torch.empty(5, 7), std=0.3)
    torch.manual_seed(2)
    filled = torch.empty(5, 7)
    normal_(filled, std=0.3)
    assert torch.equal(filled, expected)

    torch.manual_seed(3)
    expected = nn.Embedding(5, 7).weight
    torch.manual_seed(3)
    assert torch.equal(Embedding(5, 7).weight, expected)


def test_sizes_that_make_no_tensor_are_refused_in_the_given_sentence():
    with pytest.raises(InputError, match="^too large$"):
        unfilled(lambda: nn.Linear(1 << 40, 1 << 40), "too large")


@pytest.mark.parametrize("name", ["rgb", "training", "keys", "type", "forward"])
def test_a_child_is_set_whatever_its_name_and_its_parent(name):
    old, new = nn.Linear(2, 2), nn.Linear(2, 3)
    by_feature = ByFeature({name: old})
    set_child(by_feature, name, new)
    assert dict(by_feature.named_children()) == {name: new}
    assert {key: tensor.shape for key, tensor in by_feature.state_dict().items()} == {
        f"{name}.weight": (3, 2),
        f"{name}.bias": (3,),
    }
    listed = nn.ModuleList([old])
    set_child(listed, "0", new)
    assert listed[0] is new
    sequence = nn.Sequential()
    sequence.add_module("first", old)
    set_child(sequence, "first", new)
    assert sequence.get_submodule("first") is new

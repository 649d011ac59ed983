"""Arithmetic in bfloat16, as the user chooses it: what computes, what is said, and what is kept apart."""

import json

import pytest
import torch

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from topgb import devices
from topgb.devices import resolved_precision
from topgb.errors import InputError
from topgb.modelfile import load
from topgb.modelfile import packed_linear as packed
from topgb.modelfile.packed_linear import PackedLinear
from topgb.training.run_folder import read_settings

pytestmark = pytest.mark.numeric
CPU = torch.device("cpu")


@pytest.fixture
def native(monkeypatch):
    """As on a processor that computes in bfloat16 natively; without one PyTorch computes the same, slowly."""
    if not devices.computes_in_bfloat16(CPU):
        # There oneDNN refuses to bring bfloat16 into its order.
        monkeypatch.setattr(packed, "free_memory", lambda device: 0)
    for module in ("topgb.devices", "topgb.modelfile.packed_linear"):
        monkeypatch.setattr(f"{module}.computes_in_bfloat16", lambda device: True)


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "LEAST_WEIGHTS", 1)
    return model_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize("faster", [True, False])
def test_auto_takes_bfloat16_where_it_is_faster(native, monkeypatch, faster):
    monkeypatch.setattr(devices, "faster_in_bfloat16", lambda: faster)
    assert resolved_precision("auto", CPU) == ("bfloat16" if faster else "float32")
    assert resolved_precision("bfloat16", CPU) == "bfloat16"
    assert resolved_precision("float32", CPU) == "float32"
    monkeypatch.setattr(devices, "computes_in_bfloat16", lambda device: False)
    assert {resolved_precision(each, CPU) for each in ("auto", "bfloat16")} == {"float32"}


def test_what_is_faster_is_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    speeds = {None: 100.0, torch.bfloat16: 131.0}
    monkeypatch.setattr(devices, "speed", lambda path, shape, dtype=None: (speeds[dtype], 0.0))
    assert devices.faster_in_bfloat16()
    speeds[torch.bfloat16] = 129.0
    assert devices.faster_in_bfloat16()
    (tmp_path / "topgb" / "matmul.json").unlink()
    assert not devices.faster_in_bfloat16()
    assert not devices.faster_in_bfloat16()


def test_a_model_in_bfloat16_is_near_the_one_in_float32(native, model, small_records):
    data = small_records["validate"]
    exact, near = (topgb.evaluate(model, data, precision=each, progress=False) for each in ("float32", "bfloat16"))
    assert near.gap == pytest.approx(exact.gap, abs=0.02)
    assert near.loss == pytest.approx(exact.loss, rel=0.01)
    assert near.loss != exact.loss
    assert near.to_dict()["arithmetic"] == "bfloat16"
    assert "arithmetic" not in exact.to_dict()
    printed = json.loads(program("eval", model, data, "--precision", "bfloat16", "--json").stdout)
    assert printed == near.to_dict()
    compared = program("compare", model, model, data, "--precision", "bfloat16", "--json")
    assert json.loads(compared.stdout)["gap_a"] == pytest.approx(near.gap)
    assert json.loads(compared.stdout)["arithmetic"] == "bfloat16"


def test_weights_are_rounded_once(native, model):
    found = [each for each in load(model, precision="bfloat16").modules() if isinstance(each, PackedLinear)]
    assert {each.codes.dtype for each in found} == {torch.bfloat16}
    assert not [each for each in load(model).modules() if isinstance(each, PackedLinear)]
    full = load(model, resident="full", precision="bfloat16")
    assert not [each for each in full.modules() if isinstance(each, PackedLinear)]


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("kind", [torch.int8, torch.bfloat16])
def test_packed_layers_compute_in_the_arithmetic_of_autocast(native, rows, kind, monkeypatch):
    monkeypatch.setattr(packed, "TILE_COLUMNS", 32)
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(-127, 128, (24, 64), generator=random).to(kind)
    layer = PackedLinear(64, False, codes, torch.rand(24, generator=random) / 100)
    inputs = torch.randn(rows, 64, generator=random)
    expected = inputs @ (codes.float() * layer.scales[:, None]).T
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.05)


@pytest.mark.skipif(not devices.computes_in_bfloat16(CPU), reason="this processor has no bfloat16")
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_a_fixed_layer_is_brought_into_onednns_order_in_bfloat16_alone(rows):
    random = torch.Generator().manual_seed(0)
    layer = PackedLinear(64, False, torch.randn(24, 64, generator=random).bfloat16(), torch.rand(24, generator=random))
    inputs = torch.randn(rows, 64, generator=random)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        expected = layer(inputs)
        assert layer._packed is None
        layer.fix()
        found = layer(inputs)
    assert layer._packed is not None
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    layer.free()
    layer.fix()
    with torch.no_grad():
        layer(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        layer(inputs)
    assert layer._packed is None, "neither in float32 nor with gradients"


def test_scores_of_another_arithmetic_do_not_mix(native, model, small_records, tmp_path):
    data, out = small_records["validate"], tmp_path / "scores"
    topgb.distill(model, data, out, precision="bfloat16", progress=False)
    assert '"precision": "bfloat16"' in (out / "teacher.json").read_text()
    with pytest.raises(InputError, match="scores"):
        topgb.distill(model, data, out, progress=False)


def test_an_open_model_keeps_its_arithmetic(model, small_records):
    with pytest.raises(InputError, match="the model is open already"):
        topgb.evaluate(topgb.load(model), small_records["validate"], precision="bfloat16", progress=False)
    with pytest.raises(InputError, match="precision"):
        topgb.evaluate(model, small_records["validate"], precision="float16", progress=False)


def test_a_run_says_what_auto_was_and_keeps_it(native, monkeypatch, small_records, small_recipe, tmp_path):
    monkeypatch.setattr(devices, "faster_in_bfloat16", lambda: True)
    sets = {"training.precision": "auto", "training.epochs": 1}
    run, data = tmp_path / "run", small_records["train"]
    topgb.train(small_recipe, data, run, set=sets, progress=False)
    assert read_settings(run)["arithmetic"] == "bf16-mixed"
    monkeypatch.setattr(devices, "faster_in_bfloat16", lambda: False)
    topgb.train(small_recipe, data, run, set=sets, resume=True, progress=False)
    assert read_settings(run)["arithmetic"] == "bf16-mixed"

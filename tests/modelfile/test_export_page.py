"""docs/export.md: its samples run without topgb, its table is what happens; and what an export refuses."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import topgb
from topgb.cli import main
from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.files import partial_name
from topgb.modelfile import Header, Member, write_model_file
from topgb.modelfile.encodings import PARTS
from topgb.modelfile.export import export_model
from topgb.modelfile.export import onnx as onnx_export
from topgb.modelfile.member import encode_member
from topgb.models import build_tagger, parse_model
from topgb.models.registry import aggregators, heads

pytestmark = pytest.mark.numeric

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
SPEC = FeatureSpec("frame", (Feature("rgb", 6),))
CLASSES = 50

needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra onnx is not installed",
)


@pytest.fixture
def model(tmp_path) -> Path:
    torch.manual_seed(0)
    tagger = build_tagger(SPEC, CLASSES, parse_model({"aggregator": "average", "head": "logistic"}))
    entries, tensors = encode_member(0, tagger.state_dict())
    path = tmp_path / "model.safetensors"
    write_model_file(path, Header(SPEC, CLASSES, (Member(1.0, tagger.config),), entries), tensors)
    return path


def test_a_graph_checks_nothing_that_tracing_has_settled(model):
    export_model(model, model.with_suffix(".pt2"), "pt2")
    graphs = [
        part.graph
        for part in torch.export.load(model.with_suffix(".pt2")).graph_module.modules()
        if isinstance(part, torch.fx.GraphModule)
    ]
    assert graphs
    assert not [node for graph in graphs for node in graph.nodes if "assert" in str(node.target)]


@pytest.mark.parametrize("ending", [pytest.param("onnx", marks=needs_onnx), "pt2"])
def test_the_samples_run_without_topgb(model, ending):
    samples = [s for s in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if f"model.{ending}" in s]
    assert len(samples) == 1
    export_model(model, model.with_suffix(f".{ending}"), ending)
    features, counts = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8), np.array([4, 2, 1])
    np.savez(model.parent / "videos.npz", features=features, num_frames=counts)
    code = f"import sys; sys.modules['topgb'] = None\n{samples[0]}\nnumpy.save('found.npy', probabilities)"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=model.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(model.parent / "found.npy")
    np.testing.assert_allclose(found, topgb.load(model).predict(features, counts), atol=1e-6, rtol=0)


def test_the_tables_name_every_family_and_encoding():
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| (yes|no) \|", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, *_ in rows})
    # tests/modelfile/test_export.py exports each of them to both.
    assert all(answers == ["yes", "yes"] for _, *answers in rows)
    assert {name for name, *_ in rows} == {*aggregators(), *heads(), *PARTS}


@needs_onnx
def test_weights_beyond_protobufs_limit_get_a_file_of_their_own(model, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnx_export, "MOST_BYTES", 0)
    out = model.with_suffix(".onnx")
    data = out.with_name("model.onnx.data")
    data.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"model.onnx.data exists already.*force=True"):
        export_model(model, out, "onnx")
    assert data.read_bytes() == b"mine"
    assert not out.exists()
    # As a killed export leaves it.
    partial = partial_name(out)
    partial.mkdir()
    (partial / data.name).write_bytes(b"half")
    assert export_model(model, out, "onnx", force=True) == [out, data]
    assert sorted(model.parent.iterdir()) == sorted([model, out, data])
    assert data.stat().st_size >= CLASSES * 6 * 4
    features = np.random.default_rng(0).integers(0, 256, (2, 4, 6), dtype=np.uint8)
    inputs = {"features": features, "num_frames": np.array([4, 4])}
    (found,) = onnxruntime.InferenceSession(out).run(None, inputs)
    np.testing.assert_allclose(found, topgb.load(model).predict(features), atol=1e-6, rtol=0)


def test_the_same_model_gives_the_same_bytes_and_nothing_is_overwritten_without_force(model):
    first, second = model.with_name("1.pt2"), model.with_name("2.pt2")
    for out in (first, second):
        export_model(model, out, "pt2")
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(InputError, match="force=True"):
        export_model(model, first, "pt2")
    with pytest.raises(InputError, match="there is no file"):
        export_model(model.with_name("absent"), second, "pt2", force=True)
    assert first.read_bytes() == second.read_bytes()


def test_the_name_does_not_say_another_format(model):
    with pytest.raises(InputError, match="m.pt2 says pt2, and to='onnx' asks for another format"):
        export_model(model, model.with_name("m.pt2"), "onnx")
    with pytest.raises(InputError, match="let the name end in .pt2, or ask for to='onnx'"):
        export_model(model, model.with_name("m.onnx"), "pt2")


def test_without_the_extra_onnx_one_sentence_says_so(model, monkeypatch):
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs onnx, which is not installed here; .*pip install '.\[onnx\]'"):
        export_model(model, model.with_suffix(".onnx"), "onnx")


def test_the_command_writes_beside_the_model(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["topgb", "model", "export", str(model), "--to", "pt2"])
    with pytest.raises(SystemExit) as done:
        main.run()
    assert not done.value.code
    assert f"{model.with_suffix('.pt2')}: " in capsys.readouterr().out
    assert model.with_suffix(".pt2").exists()

"""topgb model quantize and shrink: exit codes, sentences, and what they print."""

import json

import pytest

from cli.program import topgb as _topgb
from combining.small_models import DBOF, model_file
from topgb.combining import shrink as shrink_module
from topgb.modelfile import read_model_file, stored_model
from topgb.modelfile.exported import exported_bytes, exported_sizes_in_words


@pytest.fixture
def model(tmp_path):
    return model_file(tmp_path / "model.safetensors", {**DBOF, "hidden": 64})


@pytest.mark.parametrize("command", ["model quantize", "model shrink"])
def test_every_command_has_help(command):
    code, out, _ = _topgb(*command.split(), "--help")
    assert code == 0
    assert f"Usage: topgb {command}" in out


def test_quantize_prints_each_tensor_and_the_score(tmp_path, model, small_records):
    out = tmp_path / "q"
    arguments = ["--method", "quant_kmeans", "--min-elements", "200", "--check", small_records["validate"]]
    code, text, err = _topgb("model", "quantize", model, "--out", out, *arguments)
    assert code == 0, err
    lines = text.splitlines()
    header, _ = read_model_file(out)
    assert lines[0].split() == ["tensor", "elements", "stored", "as", "bits", "bytes", "before", "after", "error"]
    assert {line.split()[0] for line in lines[1 : 1 + len(header.tensors)]} == set(header.tensors)
    assert lines[1 + len(header.tensors)].startswith("total")
    sizes = [path.stat().st_size for path in (model, out)]
    assert f"{sizes[0]:,} → {sizes[1]:,} bytes: {out}" in lines
    assert exported_sizes_in_words(exported_bytes(stored_model(out))) in lines
    assert lines[-1].startswith("GAP@20 0.")


def test_quantize_prints_json(tmp_path, model, small_records):
    out = tmp_path / "q"
    arguments = ["--method", "entropy", "--bits", "2.5", "--min-elements", "200", "--json"]
    arguments += ["--calibrate", small_records["unlabelled"], "--check", small_records["validate"]]
    code, text, err = _topgb("model", "quantize", model, "--out", out, *arguments)
    assert code == 0, err
    value = json.loads(text)
    assert (value["bytes_before"], value["bytes_after"]) == (model.stat().st_size, out.stat().st_size)
    assert abs(value["gap_before"] - value["gap_after"]) < 0.2
    assert value["export_bytes"] == exported_bytes(stored_model(out))
    # Entropy-coded codes become a byte each.
    assert value["export_bytes"]["onnx"] > value["bytes_after"]
    large = [tensor for tensor in value["tensors"] if tensor["elements"] > 200]
    assert {tensor["encoding"] for tensor in large} == {"int8_zlib"}
    assert all(0 < tensor["relative_error"] < 1 and tensor["bits"] < 10 for tensor in large)


def test_shrink_prints_the_frontier_and_the_choice(tmp_path, model, small_records, monkeypatch):
    monkeypatch.setattr(shrink_module, "MIN_ELEMENTS", 200)
    other = model_file(tmp_path / "other.safetensors", DBOF, 1)
    out = tmp_path / "small"
    arguments = ["--budget", "30KB", "--data", small_records["validate"]]
    code, text, err = _topgb("model", "shrink", model, other, "--out", out, *arguments)
    assert code == 0, err
    size = out.stat().st_size
    assert size <= 30_000
    assert text.splitlines()[0].split() == ["bytes", "GAP@20", "members", "×", "bits"]
    assert f"{size:,} of 30,000 bytes, GAP@20 0." in text
    assert exported_sizes_in_words(exported_bytes(stored_model(out))) in text.splitlines()
    code, text, err = _topgb("model", "shrink", model, other, "--out", out, *arguments, "--force", "--json")
    assert code == 0, err
    value = json.loads(text)
    assert value["bytes"] == size
    assert value["export_bytes"] == exported_bytes(stored_model(out))
    assert value["members"]
    assert value["frontier"][-1]["size"] <= 30_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quantize", "MODEL", "--method", "int9"], "there is no method 'int9'"),
        (["quantize", "MODEL", "--method", "int8", "--calibrate", "RECORDS"], "calibration is of the method entropy"),
        (["quantize", "nothing", "--method", "int8"], "there is no file nothing"),
        (["quantize", "MODEL", "--method", "int8", "--check", "UNLABELLED"], "hold no labels"),
        (["shrink", "MODEL", "--budget", "lots", "--data", "RECORDS"], "the budget is 'lots'"),
        (["shrink", "MODEL", "--budget", "1KB", "--data", "RECORDS"], "nothing fits 1,000 bytes"),
        (["shrink", "MODEL", "--budget", "1MB", "--data", "UNLABELLED"], "hold no labels"),
        (["shrink", "MODEL", "--budget", "1MB", "--data", "nowhere"], "no file matches 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, model, small_records, arguments, words):
    known = {"MODEL": model, "RECORDS": small_records["validate"], "UNLABELLED": small_records["unlabelled"]}
    code, _, err = _topgb("model", *(known.get(word, word) for word in arguments), "--out", tmp_path / "m")
    assert code == 2
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err

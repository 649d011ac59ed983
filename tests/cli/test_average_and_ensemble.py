"""topgb model average and ensemble, and topgb compare: exit codes, sentences, and what they print."""

import json

import numpy as np
import pytest

from cli.program import topgb as _topgb
from combining.small_models import AUDIO, DBOF, model_file, videos
from tolerances import FIGURE
from topgb import load
from topgb.modelfile import read_model_file


@pytest.fixture
def parts(tmp_path):
    return [model_file(tmp_path / f"{n}.safetensors", AUDIO if n == 2 else DBOF, n) for n in range(3)]


@pytest.mark.parametrize("command", ["model average", "model ensemble", "compare"])
def test_every_command_has_help(command):
    code, out, _ = _topgb(*command.split(), "--help")
    assert code == 0
    assert f"Usage: topgb {command}" in out


def test_average_writes_a_model(parts, tmp_path):
    code, out, err = _topgb("model", "average", *parts[:2], "--out", tmp_path / "m")
    assert (code, out) == (
        0,
        f"{tmp_path / 'm'}: the mean of 2 models, {len(read_model_file(parts[0])[1])} tensors\n",
    ), err
    assert load(tmp_path / "m").predict(videos()).shape == (9, 12)


def test_ensemble_writes_one_file_and_says_its_shares(parts, tmp_path):
    code, out, err = _topgb("model", "ensemble", *parts, "--weights", "0.7,0,0.3", "--out", tmp_path / "m")
    assert code == 0, err
    size = (tmp_path / "m").stat().st_size
    assert out == (
        f"0.7000  {parts[0]}\n0.0000  {parts[1]}  (left out)\n0.3000  {parts[2]}\n"
        f"{tmp_path / 'm'}: 2 members, {size:,} bytes\n"
    )
    expected = 0.7 * load(parts[0]).predict(videos()) + 0.3 * load(parts[2]).predict(videos())
    np.testing.assert_allclose(load(tmp_path / "m").predict(videos()), expected, atol=1e-6)
    code, out, _ = _topgb("model", "ensemble", *parts, "--out", tmp_path / "n", "--json")
    assert json.loads(out) == {
        "models": list(map(str, parts)),
        "weights": [1 / 3] * 3,
        "bytes": (tmp_path / "n").stat().st_size,
    }


def test_weights_are_fitted(parts, small_records, tmp_path):
    arguments = ["model", "ensemble", *parts, "--fit-weights", small_records["validate"], "--device", "cpu"]
    code, out, err = _topgb(*arguments, "--out", tmp_path / "m", "--json")
    assert code == 0, err
    found = json.loads(out)
    header, _ = read_model_file(tmp_path / "m")
    assert [member.weight for member in header.members] == pytest.approx([w for w in found["weights"] if w > 0])
    assert sum(found["weights"]) == pytest.approx(1.0)
    assert found["gain"] == found["gap_fitted"] - found["gap_equal"] >= 0
    assert header.origin["scores"]["gap_fitted"] == found["gap_fitted"]
    for path, gap in [*zip(parts, found["gaps"], strict=True), (tmp_path / "m", found["gap_fitted"])]:
        scores = json.loads(_topgb("eval", path, small_records["validate"], "--json")[1])
        assert gap == pytest.approx(scores["gap"], abs=FIGURE)
    code, out, err = _topgb(*arguments, "--out", tmp_path / "n")
    assert code == 0, err
    assert (tmp_path / "n").read_bytes() == (tmp_path / "m").read_bytes()
    assert f"equal weights   GAP@20 {found['gap_equal']:.5f} on 90 videos" in out
    assert f"fitted to half  {found['cross_validated_gain']:+.5f} over equal weights on the other half" in out


def test_compare_prints_the_difference(parts, small_records):
    arguments = ["compare", *parts[:2], small_records["validate"], "--resamples", "200"]
    code, out, err = _topgb(*arguments, "--json")
    assert code == 0, err
    found = json.loads(out)
    gaps = [json.loads(_topgb("eval", path, small_records["validate"], "--json")[1])["gap"] for path in parts[:2]]
    assert [found["gap_a"], found["gap_b"]] == pytest.approx(gaps, abs=1e-12)
    assert found["low"] <= found["difference"] <= found["high"]
    assert (found["videos"], found["resamples"]) == (90, 200)
    code, out, _ = _topgb(*arguments)
    assert code == 0
    assert f"A       {gaps[0]:.5f}  {parts[0]}\n" in out
    assert f"95% interval {found['low']:+.5f} to {found['high']:+.5f}" in out
    assert json.loads(_topgb(*arguments, "--json", "--seed", "1")[1])["low"] != found["low"]
    assert "A is the better one in " in out
    code, out, _ = _topgb("compare", parts[0], parts[0], *arguments[3:])
    assert (code, out.splitlines()[-1]) == (0, "A and B are equally good in each of 200 resamples")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model", "average", "{a}", "--out", "{tmp}/m"], "only 1 model is named"),
        (["model", "average", "{a}", "{b}", "--out", "{a}"], "--force"),
        (["model", "average", "{a}", "{c}", "--out", "{tmp}/m"], "member 0 aggregator is dbof in"),
        (["model", "average", "{a}", "{tmp}/none", "--out", "{tmp}/m"], "there is no file"),
        (["model", "ensemble", "{a}", "--out", "{tmp}/m"], "only 1 model is named"),
        (["model", "ensemble", "{a}", "--fit-weights", "{validate}", "--out", "{tmp}/m"], "only 1 model is named"),
        (["model", "ensemble", "{a}", "{b}", "--out", "{b}"], "--force"),
        (["model", "ensemble", "{a}", "{b}", "--weights", "0.5,0.4", "--out", "{tmp}/m"], "sum to 0.9, not 1"),
        (["model", "ensemble", "{a}", "{b}", "--weights", "1", "--out", "{tmp}/m"], "1 weights for 2 models"),
        (["model", "ensemble", "{a}", "{b}", "--weights", "x,y", "--out", "{tmp}/m"], "not a list of numbers"),
        (
            ["model", "ensemble", "{a}", "{b}", "--weights", "1,0", "--fit-weights", "{validate}", "--out", "{tmp}/m"],
            "leave out one",
        ),
        (["model", "ensemble", "{a}", "{b}", "--fit-weights", "{unlabelled}", "--out", "{tmp}/m"], "no labels"),
        (["model", "ensemble", "{a}", "{b}", "--fit-weights", "{tmp}/none*", "--out", "{tmp}/m"], "none*"),
        (["compare", "{a}", "{b}", "{unlabelled}"], "no labels"),
        (["compare", "{a}", "{tmp}", "{validate}"], "not a run"),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_exit_code_2(arguments, words, parts, small_records, tmp_path):
    names = {"a": parts[0], "b": parts[1], "c": parts[2], "tmp": tmp_path, **small_records}
    before = parts[0].read_bytes(), parts[1].read_bytes()
    code, out, err = _topgb(*(argument.format(**names) for argument in arguments))
    assert (code, out) == (2, ""), err
    assert words in err
    assert err.count("topgb: ") == 1
    assert (parts[0].read_bytes(), parts[1].read_bytes()) == before
    assert not (tmp_path / "m").exists()

"""Segments on the command line: scored, predicted, checked, and options that have nothing to do with them refused."""

import json

import pytest

import topgb
from cli.program import topgb as run
from combining.small_models import model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from topgb.errors import InputError
from topgb.records.synth import SynthOptions, write_synthetic


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segments")
    options = SynthOptions(frames=(21, 44), segments=3)
    write_synthetic(folder / "rated", SMALL_SPEC, SMALL_CLASSES, 20, options)
    model_file(folder / "m.safetensors")
    return folder


def test_a_model_is_scored_predicted_and_its_file_checked(place):
    model, data, out = place / "m.safetensors", place / "rated", place / "s.csv"
    scored = run("eval", model, data, "--segments", "--json")
    figures = json.loads(scored.stdout)
    assert list(figures) == ["segments", "rated", "k", "map_at_k", "map_at_k_submitted", "classes"]
    assert (figures["segments"], figures["k"]) == (60, 100_000)
    assert topgb.evaluate(model, data, segments=True, progress=False).to_dict() == figures
    assert topgb.evaluate(model, data, segments=True, k=7, progress=False).scores.k == 7
    (place / "classes.csv").write_text("Index,Name\n4,x\n1,y\n")
    options = ("--segments", "--k", 30, "--classes", place / "classes.csv", "--memory", "1K")
    assert run("predict", model, data, "--out", out, *options).returncode == 0
    lines = out.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["Class", "1", "4"]
    assert [len(line.split(" ")) for line in lines] == [1, 30, 30]
    checked = run("submission", "check", out, "--data", data)
    assert checked.returncode == 0, checked.stdout
    assert "2 rows" in checked.stdout
    out.write_text(out.read_text().replace("1,", "4,"))
    assert run("submission", "check", out).returncode == 1


@pytest.mark.parametrize("options", [{"threshold": 0.5}, {"rounds": 2}, {"frames": "random:5"}, {"interval": True}])
def test_options_of_whole_videos_are_refused(place, options):
    with pytest.raises(InputError, match="whole videos"):
        topgb.evaluate(place / "m.safetensors", place / "rated", segments=True, progress=False, **options)


def test_options_of_segments_need_them(place):
    with pytest.raises(InputError, match="segments"):
        topgb.evaluate(place / "m.safetensors", place / "rated", k=5, progress=False)
    with pytest.raises(InputError, match="segments"):
        topgb.predict(place / "m.safetensors", place / "rated", "x.csv", k=5, progress=False)
    with pytest.raises(InputError, match="out"):
        topgb.predict(place / "m.safetensors", place / "rated", segments=True, progress=False)


def test_records_without_ratings_are_refused(place, tmp_path):
    write_synthetic(tmp_path, SMALL_SPEC, SMALL_CLASSES, 3)
    with pytest.raises(InputError, match="rates a segment"):
        topgb.evaluate(place / "m.safetensors", tmp_path, segments=True, progress=False)

"""What holds for every command that takes a model: a run's folder will do, and records are those it was trained on."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cli.program import topgb
from combining.small_models import DBOF, model_file
from conftest import SMALL_SPEC
from tolerances import FIGURE, assert_same_words
from topgb.errors import InputError
from topgb.extractor_identity import shown
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import read_model_file, write_model_file
from topgb.records.codec import encode_sequence_example
from topgb.records.description import FILE, Description, write_description
from topgb.records.framing import frame_record
from topgb.records.synth import SynthOptions, write_synthetic
from topgb.training.job import TrainingJob
from topgb.training.loop import train
from topgb.training.recipe import load_recipe
from topgb.training.run_folder import MODEL_FILE

CLASSES = 24
OURS = {"name": "default", "image": {"net": "lite0", "filter": "area"}}
OTHERS = {"name": "default", "image": {"net": "lite0", "filter": "linear"}}
# Every command that takes a model: {m} is the model, {other} another one, {data} labelled records, {scores} a teacher's
# scores for them, {out} what is written.
OF_FILES = {
    "show": "model show {m}",
    "quantize": "model quantize {m} --out {out} --method int8 --min-elements 100",
    "average": "model average {m} {m} --out {out}",
    "ensemble": "model ensemble {m} {other} --out {out}",
    "export": "model export {m} --to pt2 --out {out}",
}
OF_RECORDS = {
    "eval": "eval {m} {data}",
    "predict": "predict {m} {data} --out {out}",
    "distill": "distill {m} {data} --out {out}",
    "compare, first": "compare {m} {other} {data} --resamples 10",
    "compare, second": "compare {other} {m} {data} --resamples 10",
    "quantize --check": "model quantize {m} --out {out} --method int8 --min-elements 100 --check {data}",
    "quantize --calibrate": "model quantize {m} --out {out} --method entropy --min-elements 100 --calibrate {data}",
    "ensemble --fit-weights": "model ensemble {m} {other} --out {out} --fit-weights {data}",
    "shrink": "model shrink {m} {other} --budget 1MB --data {data} --out {out}",
    "remember": "model remember {m} --data {data} --out {out}",
    "rerank": "model rerank {m} --data {data} --scores {scores} --out {out} --candidates 20 --epochs 1",
}
COMMANDS = OF_FILES | OF_RECORDS
# Values of the feature `rgb`, 32 bytes wide, which are no number each, and what is said of them.
NO_NUMBERS = {
    "urls": (lambda number: b"https://video.org/w?v=%010d" % number, "holds text, such as b'https://video.org/w?v="),
    "base64": (lambda number: b"aGVsbG8gd29ybGQ/%015d=" % number, "holds text, such as b'aGVsbG8gd29ybGQ/"),
    "floats": (
        lambda number: np.random.default_rng(number).normal(size=8).astype(np.float32).tobytes(),
        "holds bytes, but these are the bytes of floats, such as float32; write the values as a float list",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, records and scores of 24 classes, and two folders with the same records under other descriptions."""
    folder = tmp_path_factory.mktemp("models")
    write_synthetic(folder / "data", SMALL_SPEC, CLASSES, 60, SynthOptions(frames=(2, 5)))
    names = tuple(f"class {number}" for number in range(CLASSES))
    for name, seed in (("m", 0), ("other", 1)):
        model_file(folder / f"{name}.safetensors", DBOF, seed, classes=CLASSES, class_names=names)
    assert topgb("distill", folder / "m.safetensors", f"{folder}/data/*", "--out", folder / "scores").returncode == 0
    for kind in ("ranges", "names"):
        write_synthetic(folder / kind, SMALL_SPEC, CLASSES, 60, SynthOptions(frames=(2, 5)))
    other_range = FeatureSpec("frame", (Feature("rgb", 32, range=(-1.0, 3.0)), Feature("audio", 8)))
    write_description(Description(folder / "ranges" / FILE, other_range, CLASSES))
    rows = [f"{number},{name}" for number, name in enumerate(reversed(names))]
    # The same model and records where they say which extractor made the features: this one, or another.
    header, tensors = read_model_file(folder / "m.safetensors")
    for name, identity in (("ours", OURS), ("others", OTHERS)):
        write_model_file(folder / f"{name}.safetensors", replace(header, extras={"extractor": identity}), tensors)
        write_synthetic(folder / name, SMALL_SPEC, CLASSES, 60, SynthOptions(frames=(2, 5)))
        write_description(Description(folder / name / FILE, SMALL_SPEC, CLASSES, extractor=identity))
    (folder / "names" / "vocabulary.csv").write_text("\n".join(["Index,Name", *rows]) + "\n")
    write_description(Description(folder / "names" / FILE, SMALL_SPEC, CLASSES, "vocabulary.csv"))
    return folder


def run(command: str, folder: Path, out: Path, model: Path | None = None, data: str = "data"):
    words = {
        "m": model or folder / "m.safetensors",
        "other": folder / "other.safetensors",
        "data": f"{folder}/{data}/*.tfrecord",
        "scores": folder / "scores",
        "out": out,
    }
    return topgb(*(part.format(**words) for part in command.split()))


@pytest.mark.parametrize("name", OF_RECORDS)
def test_records_of_another_value_range_are_refused(folder, tmp_path, name):
    done = run(OF_RECORDS[name], folder, tmp_path / "out", data="ranges")
    assert done.returncode == 2, done
    assert "feature 'rgb' has the range -1 to 3, but -2 to 2 is expected" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", ["train", *OF_RECORDS])
def test_bytes_that_are_no_numbers_are_refused(folder, small_recipe, tmp_path, name, kind):
    value, said = NO_NUMBERS[kind]
    (folder / kind).mkdir(exist_ok=True)
    audio, framed = np.full((3, 8), 7, np.uint8), []
    for number in range(60):
        rgb = np.stack([np.frombuffer(value(3 * number + frame), np.uint8) for frame in range(3)])
        framed.append(frame_record(encode_sequence_example(f"v{number}", {"rgb": rgb, "audio": audio}, [number % 12])))
    pack = gzip.compress if name in ("eval", "distill") else bytes
    (folder / kind / "a.tfrecord").write_bytes(pack(b"".join(framed)))
    command = OF_RECORDS.get(name, f"train {small_recipe} --data {{data}} --out {{out}}")
    done = run(command, folder, tmp_path / "out", data=kind)
    assert done.returncode == 2, done
    assert f"feature 'rgb' of {folder}/{kind}/a.tfrecord {said}" in done.stderr
    assert not (tmp_path / "out" / MODEL_FILE).exists()


@pytest.mark.parametrize("name", OF_RECORDS)
def test_labels_of_other_classes_are_refused_where_they_are_used(folder, tmp_path, name):
    done = run(OF_RECORDS[name], folder, tmp_path / "out", data="names")
    if name in ("predict", "distill", "quantize --calibrate"):
        assert done.returncode == 0, done
    else:
        assert done.returncode == 2, done
        assert "its classes are not named as those expected" in done.stderr


@pytest.mark.parametrize("name", OF_RECORDS)
def test_features_of_another_extractor_are_refused(folder, tmp_path, name):
    done = run(OF_RECORDS[name], folder, tmp_path / "out", folder / "ours.safetensors", "others")
    assert done.returncode == 2, done
    assert f"its features were made by the extractor {shown(OTHERS)}" in done.stderr
    assert f"trained on by {shown(OURS)}: image.filter is 'linear', not 'area'" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", OF_RECORDS)
def test_one_line_says_where_only_the_model_or_the_records_have_an_extractor(folder, tmp_path, name):
    """And what is made of a model goes on saying it."""
    done = run(OF_RECORDS[name], folder, tmp_path / "a", folder / "ours.safetensors")
    assert done.returncode == 0, done
    said = [line for line in done.stderr.splitlines() if "nothing beside" in line]
    assert len(said) == 1, done
    assert said[0].startswith("warning: ")
    assert shown(OURS) in said[0]
    out = tmp_path / "a"
    if out.is_file() and name != "predict":
        assert read_model_file(out)[0].extractor == OURS
    same = run(OF_RECORDS[name], folder, tmp_path / "b", folder / "ours.safetensors", "ours")
    assert same.returncode == 0, same
    assert "extractor" not in same.stderr or "{other}" in OF_RECORDS[name]
    if "{other}" not in OF_RECORDS[name]:
        done = run(OF_RECORDS[name], folder, tmp_path / "c", data="ours")
        assert done.returncode == 0, done
        assert "the model does not say which made those it was trained on" in done.stderr


@pytest.mark.parametrize("name", ["average", "ensemble"])
def test_models_of_two_extractors_are_not_put_together(folder, tmp_path, name):
    ours, others, out = (folder / f"{n}.safetensors" for n in ("ours", "others", "made"))
    done = topgb("model", name, ours, others, "--out", out)
    assert done.returncode == 2, done
    assert f"two extractors, {shown(OURS)} in {ours} and {shown(OTHERS)} in {others}: image.filter" in done.stderr
    assert not out.exists()
    done = topgb("model", name, folder / "m.safetensors", ours, "--out", tmp_path / "made")
    assert done.returncode == 0, done
    assert "m.safetensors does not say which extractor made the features it was trained on" in done.stderr
    assert read_model_file(tmp_path / "made")[0].extractor == OURS


def test_a_run_takes_the_extractor_of_its_records(folder, small_recipe, tmp_path):
    recipe = load_recipe(str(small_recipe), [f"data.classes={CLASSES}", "training.epochs=1"])
    job = TrainingJob(recipe, str(folder / "ours"), tmp_path / "run", device="cpu")
    train(job)
    assert read_model_file(tmp_path / "run" / MODEL_FILE)[0].extractor == OURS
    parts = ["validate", "init_from", "ema_source"]
    for part, other in zip(parts, ("others", "others.safetensors", "others.safetensors"), strict=True):
        value = str(folder / other) if part == "validate" else folder / other
        with pytest.raises(InputError, match="the extractor default .* image.filter is "):
            train(replace(job, out=tmp_path / "other", **{part: value}))
    both = [str(folder / name / "*.tfrecord") for name in ("ours", "others")]
    with pytest.raises(InputError, match="those of .*others by default .* image.filter is 'area', not 'linear'"):
        train(replace(job, data=both, out=tmp_path / "other"))


def test_a_folder_of_another_value_range_among_others_is_refused(folder, tmp_path):
    data = f"{folder}/data/*.tfrecord,{folder}/ranges/*.tfrecord"
    done = topgb("predict", folder / "m.safetensors", data, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "has the range -1 to 3" in done.stderr


@pytest.fixture(scope="module")
def run_folder(folder, small_recipe) -> Path:
    """A finished run on the records of `folder`."""
    changes = [f"data.classes={CLASSES}", "training.epochs=1"]
    recipe = load_recipe(str(small_recipe), changes)
    train(TrainingJob(recipe, f"{folder}/data/*", folder / "run", device="cpu"))
    return folder / "run"


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "checkpoint"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_runs_folder_stands_for_its_model(folder, run_folder, tmp_path, name, finished):
    """With the model file that the run ended with, or else its best checkpoint: what comes out is the same."""
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for path in run_folder.iterdir():
        if path.name != MODEL_FILE:
            (unfinished / path.name).symlink_to(path)
    shown, parents = [], []
    for kind, model in (("file", run_folder / MODEL_FILE), ("run", run_folder if finished else unfinished)):
        out = tmp_path / kind
        done = run(COMMANDS[name], folder, out, model)
        assert done.returncode == 0, done
        shown.append(
            done.stdout.replace(str(out), "OUT").replace(str(model), "MODEL").replace(f"MODEL/{MODEL_FILE}", "MODEL")
        )
        if out.is_file() and name not in ("export", "predict"):
            parents.append(read_model_file(out)[0].origin["parents"])
    # A checkpoint's weights begin at other addresses than the model file's.
    assert_same_words(shown[1], shown[0])
    assert len(parents) in (0, 2)
    # Named by the hash of the file, also where it is not written yet.
    assert not parents or parents[0] == parents[1]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "photos").mkdir()
    done = topgb("model", "show", tmp_path / "photos")
    assert done.returncode == 2
    assert "photos is not a run" in done.stderr


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shrinking_does_not_depend_on_the_order_of_members(small_records, tmp_path, order):
    """Each member sees as many frames as it looks at, whichever is named first."""
    sections = ({**DBOF, "max_frames": 300}, {**DBOF, "max_frames": 2})
    files = [model_file(tmp_path / f"{n}.safetensors", s, n) for n, s in enumerate(sections)]
    data, out = small_records["validate"], tmp_path / "out"
    arguments = ["--budget", "10MB", "--data", data, "--out", out, "--json"]
    done = topgb("model", "shrink", *(files[place] for place in order), *arguments)
    assert done.returncode == 0, done
    scored = topgb("eval", out, data, "--json")
    assert json.loads(done.stdout)["gap"] == pytest.approx(json.loads(scored.stdout)["gap"], abs=FIGURE)


@pytest.mark.parametrize("option", ["--init-from", "--ema-source"])
def test_training_starts_from_a_run_as_from_its_file(folder, run_folder, small_recipe, tmp_path, option):
    finished = []
    for name, parent in (("file", run_folder / MODEL_FILE), ("run", run_folder)):
        arguments = [small_recipe, "--data", f"{folder}/data/*", "--out", tmp_path / name, "--device", "cpu"]
        changes = ["--set", f"data.classes={CLASSES}", "--set", "training.epochs=1"]
        done = topgb("train", *arguments, *changes, option, parent)
        assert done.returncode == 0, done
        finished.append((tmp_path / name / MODEL_FILE).read_bytes())
    assert finished[0] == finished[1]


@pytest.mark.parametrize("option", ["--data", "--validate"])
def test_training_on_records_described_otherwise_is_refused(folder, small_recipe, tmp_path, option):
    """From Python too, where nothing takes the description in place of the recipe's data section."""
    recipe = load_recipe(str(small_recipe), [f"data.classes={CLASSES}", "training.epochs=1"])
    data, other = f"{folder}/data/*.tfrecord", f"{folder}/ranges/*.tfrecord"
    job = TrainingJob(recipe, data, tmp_path / "run", validate=other, device="cpu")
    if option == "--data":
        job = TrainingJob(recipe, other, tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match="feature 'rgb' has the range -1 to 3, but -2 to 2 is expected"):
        train(job)
    assert not (tmp_path / "run").exists()

"""The public calls: what they accept, what they return, and how they say what is wrong."""

import builtins
import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

import topgb
from api.conftest import AVERAGE
from cli.program import topgb as program
from combining.small_models import model_file
from topgb.modelfile import read_model_file
from topgb.progress import TerminalProgress
from topgb.training.stopping import Asked

FIGURES = ["videos", "gap", "hit_at_1", "perr", "map", "map_present", "loss", "threshold"]
DECIDED = ["threshold", "precision", "recall", "f1"]
FIGURES += [f"{name}_{mean}" for mean in ("micro", "macro") for name in ("precision", "recall", "f1")]


def _same_weights(a: Path, b: Path) -> bool:
    return all(torch.equal(tensor, read_model_file(b)[1][name]) for name, tensor in read_model_file(a)[1].items())


def test_evaluate_takes_models_and_records_of_every_form(place):
    validate = place.folder / "records" / "validate0000.tfrecord"
    expected = topgb.evaluate("run", "records/validate*.tfrecord", progress=False).to_dict()
    assert list(expected) == FIGURES
    printed = json.loads(program("eval", "run", "records/validate*.tfrecord", "--json").stdout)
    assert printed == expected
    model = topgb.load("run")
    for given, data in (
        (Path("run"), validate),
        ("model.safetensors", [validate]),
        (model, [str(validate), str(validate)]),
        (model, "records/validate*.tfrecord,records/validate0000.tfrecord"),
    ):
        assert topgb.evaluate(given, data, progress=False).to_dict() == expected


def test_a_folder_is_its_part(place, tmp_path):
    packed = tmp_path / "packed"
    parts = topgb.pack("features", packed, labels=Path("labels.csv"), validate=0.25, progress=False)
    files = [str(packed / "train*.tfrecord")], [packed / "validate0000.tfrecord"]
    wanted = topgb.train(place.recipe, files[0], tmp_path / "a", validate=files[1], progress=False)
    for data in (packed, [packed]):
        trained = topgb.train(place.recipe, data, tmp_path / "b", force=True, progress=False)
        assert trained.validation == wanted.validation
        assert _same_weights(trained.model, wanted.model)
    assert topgb.load(wanted).class_names == parts.description.class_names()
    assert topgb.evaluate(wanted, packed, progress=False).videos == parts.validate


def test_videos_longer_than_a_model_looks_at_are_warned_of(place, tmp_path):
    short = model_file(tmp_path / "short.safetensors", AVERAGE | {"max_frames": 3})
    for call, more in ((topgb.evaluate, ()), (topgb.predict, ()), (topgb.distill, (tmp_path / "scores",))):
        with pytest.warns(
            UserWarning, match="60 of 60 videos are longer than the 3 frames .* greater model.max_frames"
        ) as said:
            call(short, "records/validate*.tfrecord", *more, progress=False)
        assert said[0].filename == __file__


def test_a_path_with_a_comma_is_one_path(place, tmp_path):
    odd = tmp_path / "a,b.tfrecord"
    odd.write_bytes((place.folder / "records" / "validate0000.tfrecord").read_bytes())
    assert topgb.inspect(odd, progress=False).records == 60
    assert topgb.inspect([odd], progress=False).records == 60


@pytest.mark.parametrize("given", [3, [3], None, b"a"])
def test_what_is_no_path_gets_a_sentence(place, given):
    with pytest.raises(topgb.InputError, match="is no path|names no records"):
        topgb.evaluate("run", given, progress=False)
    with pytest.raises(topgb.InputError, match="is no path"):
        topgb.evaluate(given if not isinstance(given, bytes) else 3.5, "records/*", progress=False)


def test_compare_and_predict_take_open_models(place):
    data = "records/validate*.tfrecord"
    model = topgb.load("run")
    found = topgb.compare(topgb.load("a.safetensors"), model, data, resamples=50, progress=False)
    assert found.to_dict() == topgb.compare("a.safetensors", "run", data, resamples=50, progress=False).to_dict()
    assert found.gap_b > found.gap_a
    predicted = topgb.predict(model, data, progress=False)
    best = predicted.to_dict()["predictions"][predicted.ids[0]][0]
    assert best == [predicted.classes[0, 0], str(predicted.classes[0, 0]), predicted.probabilities[0, 0]]


def test_predictions_in_a_file_and_in_memory_are_the_same(place, tmp_path):
    data = "records/validate*.tfrecord"
    kept = topgb.predict("run", data, progress=False)
    written = topgb.predict("run", data, tmp_path / "p.csv", progress=False)
    assert (written.videos, written.path) == (60, tmp_path / "p.csv")
    for row, video, classes, scores in zip(
        (tmp_path / "p.csv").read_text().splitlines()[1:], kept.ids, kept.classes, kept.probabilities, strict=True
    ):
        pairs = " ".join(f"{c} {p:.6g}" for c, p in zip(classes, scores, strict=True))
        assert row == f"{video},{pairs}"
    with pytest.raises(topgb.InputError, match=r"are in .*p\.csv"):
        written.to_pandas()
    with pytest.raises(topgb.InputError, match="overwrite it with force=True"):
        topgb.predict("run", data, tmp_path / "p.csv", progress=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "rey"}, "engine='rey' is none of local, ray"),
        ({"on_damaged": "skipp"}, "on_damaged='skipp' is none of stop, skip"),
        ({"rounds": 0}, "rounds=0 is too small; it is 1 at least"),
        ({"rounds": 2}, "rounds and seed go with sampled frames; add frames='random:300'"),
        ({"device": "abacus"}, "use device='cpu'"),
        ({"resident": "paked"}, "packed, half"),
        ({"use_ema": True}, "keeps no EMA weights; leave out use_ema"),
        ({"vocabulary": "labels.csv"}, "labels.csv has no column Index"),
    ],
)
def test_wrong_options_are_named_as_in_python(place, options, said):
    with pytest.raises(topgb.InputError, match=said):
        topgb.evaluate("run", "records/validate*.tfrecord", progress=False, **options)


@pytest.mark.parametrize(
    ("call", "options", "said"),
    [
        ("synth", {"frames": (5,)}, r"frames=\(5,\) is not two numbers"),
        ("synth", {"frames": (9, 4)}, "frames"),
        ("synth", {"features": {"rgb": "8"}}, "does not give widths by name"),
        ("synth", {"videos": "many"}, "videos='many' is no number"),
        ("download", {"partition": "2/frame/train", "shard": "1,100"}, "shard='1,100' is not two numbers"),
        ("download", {"partition": "2/frame"}, "2/frame"),
    ],
)
def test_wrong_values_get_a_sentence(tmp_path, call, options, said):
    with pytest.raises(topgb.InputError, match=said):
        getattr(topgb, call)(tmp_path / "out", progress=False, **options)


@pytest.mark.parametrize("given", [3, (3,), {"embedding": 3}, {"embedding": ("a", "b")}])
def test_a_range_is_two_numbers(place, tmp_path, given):
    with pytest.raises(topgb.InputError, match="range=.* is not two numbers"):
        topgb.pack("features", tmp_path / "p", range=given, progress=False)


@pytest.mark.parametrize("given", [3, "training.epochs=1", [3], ["epochs"]])
def test_set_is_values_by_key(place, tmp_path, given):
    with pytest.raises(topgb.InputError, match="set .*(gives no values by key|is not KEY=VALUE)"):
        topgb.train(place.recipe, "records/train*.tfrecord", tmp_path / "r", set=given, progress=False)


def test_what_packed_records_unpack_to_is_bounded_for_one_call(place, tmp_path):
    packed = tmp_path / "r.tfrecord.gz"
    packed.write_bytes(gzip.compress(Path("records/validate0000.tfrecord").read_bytes()))
    with pytest.raises(topgb.InputError, match="allow more with max_unpacked="):
        topgb.evaluate("run", packed, max_unpacked=100, progress=False)
    with pytest.raises(topgb.InputError, match="max_unpacked='much' is not a size"):
        topgb.evaluate("run", packed, max_unpacked="much", progress=False)
    assert topgb.evaluate("run", packed, max_unpacked="1M", progress=False).videos == 60
    assert topgb.evaluate("run", packed, progress=False).videos == 60


def test_weights_and_frames_are_checked(place, tmp_path):
    with pytest.raises(topgb.InputError, match="are not numbers"):
        topgb.ensemble(["a.safetensors", "b.safetensors"], tmp_path / "e", weights=["a", "b"])
    with pytest.raises(topgb.InputError, match="frame sampling 300 is not known"):
        topgb.evaluate("run", "records/validate*.tfrecord", frames=300, progress=False)
    with pytest.raises(topgb.InputError, match="no method 3"):
        topgb.quantize("run", tmp_path / "q", method=3, progress=False)


def test_options_that_open_a_model_do_not_go_with_an_open_one(place):
    with pytest.raises(
        topgb.InputError, match="is open already, and device, use_ema, resident, precision and engine say"
    ):
        topgb.evaluate(topgb.load("run"), "records/validate*.tfrecord", device="cpu", progress=False)


def test_tables_become_data_frames(place, monkeypatch):
    pytest.importorskip("pandas")
    data = "records/validate*.tfrecord"
    scored = topgb.evaluate("run", data, progress=False)
    frame = scored.to_pandas()
    assert list(frame.columns) == ["class", "name", "positives", "average_precision", *DECIDED]
    assert np.isclose(frame["average_precision"].mean(), scored.map_present)
    pairs = topgb.predict("run", data, progress=False).to_pandas()
    assert list(pairs.columns) == ["id", "class", "name", "probability"]
    assert len(pairs) == 60 * 12
    assert list(topgb.inspect(data, progress=False).to_pandas()["name"]) == ["audio", "rgb"]
    assert len(topgb.verify(data, progress=False).to_pandas()) == 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(topgb.InputError, match=r"needs pandas, .* pip install '\.\[pandas\]'"):
        scored.to_pandas()


def test_results_are_readable_and_json(place):
    data = "records/validate*.tfrecord"
    found = topgb.inspect(data, progress=False)
    assert json.loads(json.dumps(found.to_dict())) == json.loads(program("data", "inspect", data, "--json").stdout)
    assert repr(found).startswith("Inspection(\n    files=1,\n    records=60,\n    level='frame',\n")
    verified = topgb.verify(data, progress=False).to_dict()
    assert verified == json.loads(program("data", "verify", data, "--json").stdout)
    assert repr(topgb.evaluate("run", data, progress=False)).startswith("Evaluation(\n    videos=60,\n    gap=0.")


@pytest.mark.parametrize("form", ["dict", "file", "run"])
def test_a_recipe_of_any_form_gives_the_same_weights(place, tmp_path, form):
    recipe = {"dict": place.recipe, "file": tmp_path / "r.yaml", "run": Path("run")}[form]
    (tmp_path / "r.yaml").write_text(json.dumps(place.recipe))
    before = json.dumps(place.recipe)
    trained = topgb.train(recipe, ["records/train*.tfrecord"], tmp_path / "again", progress=False)
    assert json.dumps(place.recipe) == before
    assert _same_weights(Path("run/model.safetensors"), trained.model)
    assert json.loads(json.dumps(trained.to_dict()))["model"] == str(trained.model)
    # A run's result stands for its model.
    assert topgb.load(trained).classes == 12


def test_the_values_of_set_are_values(place, tmp_path):
    data = "records/train*.tfrecord"
    for number, settings in enumerate(
        ({"training.epochs": 1}, {"training": {"epochs": 1, "batch_size": 16, "seed": 1}})
    ):
        topgb.train(place.recipe, data, tmp_path / str(number), set=settings, progress=False)
    assert _same_weights(tmp_path / "0" / "model.safetensors", tmp_path / "1" / "model.safetensors")
    with pytest.raises(topgb.InputError, match="'training.epochs'.*'many'|many"):
        topgb.train(place.recipe, data, tmp_path / "x", set={"training.epochs": "many"}, progress=False)
    with pytest.raises(topgb.InputError, match=r"set=\{'training.epochs.x': 1\}: 'epochs' is not a section"):
        topgb.train(place.recipe, data, tmp_path / "x", set={"training.epochs.x": 1}, progress=False)
    with pytest.raises(topgb.InputError, match="distill_weight goes with teacher"):
        topgb.train(place.recipe, data, tmp_path / "x", distill_weight=0.5, progress=False)
    with pytest.raises(topgb.InputError, match="is no run: it has no recipe.yaml"):
        topgb.train(tmp_path, data, tmp_path / "x", progress=False)


def test_training_works_in_a_thread(place, tmp_path):
    done: list[object] = []

    def work() -> None:
        done.append(topgb.train(place.recipe, "records/train*.tfrecord", tmp_path / "run", progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert _same_weights(Path("run/model.safetensors"), done[0].model)


def test_ctrl_c_leaves_a_checkpoint_from_which_training_goes_on(place, tmp_path, monkeypatch):
    from topgb.training.loop import _Trainer

    take = _Trainer._take_step

    def interrupted(self, batch, curves, asked):
        if self.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, batch, curves, asked)

    monkeypatch.setattr(_Trainer, "_take_step", interrupted)
    data, out = "records/train*.tfrecord", tmp_path / "run"
    with pytest.raises(KeyboardInterrupt, match="interrupted after step [56] of 27; .* resume=True goes on"):
        topgb.train(place.recipe, data, out, progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert list((out / "checkpoints").iterdir())
    monkeypatch.undo()
    monkeypatch.chdir(place.folder)
    resumed = topgb.train(place.recipe, data, out, resume=True, progress=False)
    assert _same_weights(Path("run/model.safetensors"), resumed.model)


def test_a_second_ctrl_c_ends_at_once():
    from topgb.training.stopping import interrupts_noted

    with pytest.raises(KeyboardInterrupt):
        with interrupts_noted(Asked()):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError
    with pytest.raises(topgb.TopgbError, match="interrupted after the last step"):
        with interrupts_noted(Asked()):
            os.kill(os.getpid(), signal.SIGINT)


def test_progress_is_silent_on_request(place, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("topgb.progress.LINE_SECONDS", 0)
    topgb.evaluate("run", "records/validate*.tfrecord", progress=False)
    topgb.train(place.recipe, "records/train*.tfrecord", tmp_path / "run", progress=False)
    assert capfd.readouterr() == ("", "")
    topgb.evaluate("run", "records/validate*.tfrecord")
    assert "evaluating" in capfd.readouterr().err


def test_a_notebook_shows_a_bar(monkeypatch):
    shown: list[object] = []
    cell = SimpleNamespace(update=shown.append)
    display = ModuleType("IPython.display")
    display.display = lambda value, display_id: shown.append(value) or cell
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(builtins, "get_ipython", lambda: type("ZMQInteractiveShell", (), {})(), raising=False)
    monkeypatch.setattr("topgb.progress.NOTEBOOK_SECONDS", 0)
    progress = TerminalProgress()
    progress.begin("training", 10, "videos")
    progress.advance(5, "loss <1>")
    progress.end()
    assert [repr(one).split("%")[0] for one in shown] == ["training   0", "training  50", "training  50"]
    assert '<progress value="5" max="10"></progress>' in shown[1]._repr_html_()
    assert "loss &lt;1&gt;" in shown[1]._repr_html_()


def test_files_that_calls_write_stand_for_their_paths(place, tmp_path):
    mean = topgb.average(["a.safetensors", "b.safetensors"], tmp_path / "mean")
    small = topgb.quantize(mean, tmp_path / "small", method="int8", min_elements=10, progress=False)
    both = topgb.ensemble([small, mean], tmp_path / "both")
    assert both.weights == [0.5, 0.5]
    assert topgb.load(both).header.members[0].weight == 0.5
    with pytest.raises(topgb.InputError, match=r"is not a list of models; give \[A, B\]"):
        topgb.average("a.safetensors", tmp_path / "x")
    with pytest.raises(topgb.InputError, match="weights gives the shares and fit_weights finds them"):
        topgb.ensemble([mean, mean], tmp_path / "x", weights=[1, 0], fit_weights="records/*")


def test_fitted_weights_are_in_the_result(place, tmp_path):
    data = "records/validate*.tfrecord"
    fitted = topgb.ensemble(["run", "a.safetensors"], tmp_path / "f", fit_weights=data, progress=False)
    printed = program(
        "model", "ensemble", "run", "a.safetensors", "--out", tmp_path / "g", "--fit-weights", data, "--json"
    )
    assert json.loads(printed.stdout) == json.loads(json.dumps(fitted.to_dict()))
    assert fitted.columns()["gap"][0] > fitted.columns()["gap"][1]


def test_a_range_of_all_features_or_by_name(place, tmp_path):
    for number, given in enumerate(((-5, 5), {"embedding": (-5, 5)})):
        packed = topgb.pack(Path("features"), tmp_path / str(number), range=given, progress=False)
        assert packed.description.spec.features[0].range == (-5, 5)


def test_errors_are_sent_between_processes():
    assert pickle.loads(pickle.dumps(topgb.InputError("a"))).args == ("a",)


def test_importing_topgb_reads_few_modules():
    code = "import sys; before = set(sys.modules); import topgb; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60

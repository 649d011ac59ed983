"""Names that hold a terminal's commands are shown escaped by every command: of files, ids, features and classes."""

import gzip
import json

import numpy as np
import pytest

from cli.program import topgb
from cli.test_every_model_command import CLASSES, OF_FILES, OF_RECORDS
from combining.small_models import DBOF, model_file
from conftest import SMALL_SPEC
from topgb.features import Feature, FeatureSpec
from topgb.records.codec import encode_example, encode_sequence_example
from topgb.records.framing import frame_record
from topgb.records.synth import SynthOptions, write_synthetic

EVIL = "\x1b[2J\x9b\u2028\u202e"
SHOWN = r"\x1b[2J\x9b\u2028\u202e"
# Tracing a program takes seconds, and prints what the others print.
COMMANDS = {name: text for name, text in (OF_FILES | OF_RECORDS).items() if name != "export"}
COMMANDS |= {
    "inspect": "data inspect {data}",
    "verify": "data verify {data}",
    "thresholds": "thresholds {m} {data} --out {out}",
    "report": "report {m} {data} --out {out}",
    "card": "model card {m} --data {data} --out {out}",
    "segments": "predict {m} {data} --segments --out {out}",
    "no sources": "extract {out} --out {out}",
    "no models": "serve {out} --port 0",
    "synth": "data synth {out} --videos 2 --features rgb:4",
    "no data": "eval {m} {out}",
    "no model": "model show {out}",
    "no recipe": "train {out} --data {data} --out {out}",
    "no submission": "submission check {out}",
    "no features": "data pack {out} --out {out}.packed",
    "no command": "data {out}",
    "no option": "eval --{out}",
    "no choice": "model export {m} --to {out}",
    "too much": "model show {m} {out}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / f"folder {EVIL}"
    options = SynthOptions(frames=(2, 5), prefix=f"shard{EVIL}")
    write_synthetic(folder / "data", SMALL_SPEC, CLASSES, 60, options)
    names = tuple(f"class {EVIL} {number}" for number in range(CLASSES))
    for name, seed in (("m", 0), ("other", 1)):
        model_file(folder / f"{name}.safetensors", DBOF, seed, classes=CLASSES, class_names=names)
    done = topgb("distill", folder / "m.safetensors", f"{folder}/data/*", "--out", folder / "scores")
    assert done.returncode == 0, done
    return folder


@pytest.mark.parametrize("name", COMMANDS)
def test_escaped_in_what_every_command_prints(folder, tmp_path, name):
    words = {
        "m": folder / "m.safetensors",
        "other": folder / "other.safetensors",
        "data": f"{folder}/data/*.tfrecord",
        "scores": folder / "scores",
        "out": tmp_path / f"out{EVIL}",
    }
    done = topgb(*(part.format(**words) for part in COMMANDS[name].split(" ")))
    assert done.returncode == (2 if name.startswith(("no ", "too ")) else 0), done
    for line in (done.stdout + done.stderr).split("\n"):
        assert line.isprintable(), ascii(line)
    # Rich breaks the lines of usage errors.
    if name not in ("eval", "inspect", "verify", "rerank", "no option"):
        assert SHOWN in (done.stdout + done.stderr).replace("\n", "").replace("│", "").replace(" ", ""), done


def test_json_holds_them(folder):
    done = topgb("model", "show", "--json", folder / "m.safetensors")
    assert done.stdout.rstrip("\n").isprintable()
    assert json.loads(done.stdout)["class_names"][0] == f"class {EVIL} 0"


def test_escaped_in_ids_and_labels(tmp_path):
    """What `pack` and `inspect` say of ids, and of labels that are more than one."""
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / f"id{EVIL}.npy", np.ones((2, 3), np.float32))
    (tmp_path / "labels.csv").write_text(f'id,labels\n"id{EVIL}",[0 {EVIL}]\n"id{EVIL}",1\n', encoding="utf-8")
    out = tmp_path / "packed"
    done = topgb("data", "pack", tmp_path / "features", "--labels", tmp_path / "labels.csv", "--out", out)
    assert done.returncode == 2
    assert done.stderr.rstrip("\n").isprintable()
    assert r"\x1b[2J" in done.stderr


def test_the_case_of_an_id(cases):
    for command in ("verify", "inspect"):
        done = topgb("data", command, cases / "hostile/escape_id.tfrecord")
        assert all(line.isprintable() for line in (done.stdout + done.stderr).split("\n"))


@pytest.mark.parametrize("level", ["frame", "video"])
@pytest.mark.parametrize("suffix", ["tfrecord", "tfrecord.gz"])
def test_an_id_that_a_sentence_names(tmp_path, level, suffix):
    """The siblings of that case: an id stands in what is said of videos that occur twice, and of scores."""
    spec = FeatureSpec(level, (Feature("x", 4, "uint8" if level == "frame" else "float32"),))
    values = {"x": np.ones((2, 4), np.uint8)} if level == "frame" else {"x": np.ones(4, np.float32)}
    encode = encode_sequence_example if level == "frame" else encode_example
    record = frame_record(encode(f"id{EVIL}", values, [0]))
    path = tmp_path / f"a.{suffix}"
    path.write_bytes((gzip.compress if suffix.endswith("gz") else bytes)(2 * record))
    model = model_file(tmp_path / "m", {"aggregator": "average", "head": "logistic"}, features=spec, classes=2)
    for command in (("data", "verify"), ("data", "inspect"), ("eval", model)):
        done = topgb(*command, path)
        said = done.stdout + done.stderr
        assert "1 video occurs more than once: the id 'id" in said, done
        assert r"\x1b[2J" in said
        assert all(line.isprintable() for line in said.split("\n"))

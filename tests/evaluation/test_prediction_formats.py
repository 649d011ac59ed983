"""Tables of predictions: the same pairs in each format, and the same bytes however they were put together."""

import csv
import gzip
import io
import json

import pytest
import torch

from cli.program import topgb
from combining.small_models import model_file
from conftest import SMALL_CLASSES
from topgb import InputError, load, predict
from topgb.evaluation.prediction_formats import Challenge, Pairs, chosen_format

NAMES = tuple(f'class "{index}", ä' for index in range(SMALL_CLASSES))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_file(tmp_path_factory.mktemp("model") / "m.safetensors", class_names=NAMES)


def _read(path) -> list[tuple[str, int, str, float]]:
    raw = path.read_bytes()
    text = gzip.decompress(raw) if path.name.endswith(".gz") else raw
    if ".parquet" in path.name:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    elif ".jsonl" in path.name:
        rows = [json.loads(line) for line in text.decode().splitlines()]
    else:
        rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    assert all(list(row) == ["id", "class", "name", "probability"] for row in rows)
    return [(row["id"], int(row["class"]), row["name"], float(row["probability"])) for row in rows]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("p.jsonl", []),
        ("p.jsonl.gz", []),
        ("p.csv", ["--format", "csv"]),
        ("p.csv.gz", ["--format", "csv"]),
        ("p.txt", ["--format", "csv"]),
        ("p.parquet", []),
    ],
)
def test_every_format_holds_the_same_pairs(name, options, model, small_records, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    data = small_records["validate"]
    limits = ["--top", "5", "--threshold", "0.3"]
    done = topgb("predict", model, data, "--out", tmp_path / name, *options, *limits)
    assert done.returncode == 0, done.stderr
    expected = predict(model, data, top=5, threshold=0.3, progress=False)
    rows = list(zip(*expected.columns().values(), strict=True))
    assert 0 < len(rows) < 5 * expected.videos
    found = _read(tmp_path / name)
    assert [row[:3] for row in found] == [row[:3] for row in rows]
    assert [row[3] for row in found] == pytest.approx([row[3] for row in rows], rel=1e-5)
    assert min(row[3] for row in found) >= 0.3
    assert sum(map(len, expected.to_dict()["predictions"].values())) == len(rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_shards_kept_and_put_together_give_the_same_bytes(kind, tmp_path, monkeypatch):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    monkeypatch.setattr("topgb.evaluation.prediction_formats.ROW_GROUP", 7)
    rows = Pairs(kind, None, top=3)
    probabilities = torch.rand(12, 6, generator=torch.Generator().manual_seed(0))
    pieces = [
        rows.encode([f"v{i}" for i in range(first, first + 4)], probabilities[first : first + 4])
        for first in (0, 4, 8)
    ]  # fmt: skip
    for name, written in (("one", pieces), ("other", [b"".join(pieces[:2]), b"", pieces[2]])):
        with rows.open(tmp_path / name) as write:
            for piece in written:
                write(piece)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_table_of_no_pair_is_a_table(tmp_path):
    rows = Pairs("parquet" if _has_pyarrow() else "csv", None, 3, torch.ones(2).numpy())
    path = tmp_path / ("p.parquet" if _has_pyarrow() else "p.csv")
    with rows.open(path) as write:
        write(rows.encode(["v"], torch.tensor([[0.5, 0.25]])))
    assert _read(path) == []


def _has_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


def test_a_failed_prediction_leaves_no_table(tmp_path):
    rows = Pairs("parquet" if _has_pyarrow() else "jsonl", None)
    with pytest.raises(RuntimeError), rows.open(tmp_path / "p") as write:
        write(rows.encode(["v"], torch.tensor([[0.5, 0.25]])))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_a_format_is_refused(model, small_records, tmp_path):
    data = small_records["validate"]

    def said(name: str, *options: str) -> str:
        done = topgb("predict", model, data, "--out", tmp_path / name, *options)
        assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
        return done.stderr

    assert "--threshold does not go with the challenge's CSV" in said("p.csv", "--threshold", "0.5")
    assert "--top 21 does not go with the challenge's CSV" in said("p.csv.gz", "--top", "21")
    assert "the ending of parquet, and --format csv is another" in said("p.parquet", "--format", "csv")
    assert "--format xml is none of challenge, csv, jsonl, parquet" in said("p.xml", "--format", "xml")
    assert "has no thresholds" in said("p.jsonl", "--threshold", "model")
    with pytest.raises(InputError, match="format='csv' writes the predictions to a file; give out"):
        predict(model, data, format="csv")


def test_endings_choose_formats(tmp_path):
    for name, found in (
        ("a.parquet", "parquet"), ("a.PQ", "parquet"), ("a.jsonl", "jsonl"), ("a.jsonl.gz", "jsonl"),
        ("a.csv", "challenge"), ("a.csv.gz", "challenge"), ("a", "challenge"),
    ):  # fmt: skip
        assert chosen_format(tmp_path / name, None) == found


def test_fewer_classes_of_a_video_in_the_challenges_csv(model, small_records, tmp_path):
    done = topgb("predict", model, small_records["validate"], "--out", tmp_path / "p.csv", "--top", "3")
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "p.csv").read_text().splitlines()[1]
    assert len(first.split(",")[1].split()) == 6


def test_formats_tell_their_rows_apart():
    forms = [
        Challenge(), Challenge(NAMES), Challenge(top=3), Pairs("csv"), Pairs("jsonl"), Pairs("csv", top=3),
        Pairs("csv", NAMES), Pairs("csv", thresholds=torch.ones(2).numpy()),
    ]  # fmt: skip
    assert len({json.dumps(form.to_json()) for form in forms}) == len(forms)


def test_all_classes_of_a_model_in_memory(model, small_records):
    found = predict(load(model), small_records["validate"], top=100, progress=False)
    assert found.classes.shape == (90, SMALL_CLASSES)

"""Shrinking to a budget: it fits, it is reproducible, and a stopped run goes on."""

import pytest

import topgb
from combining.small_models import DBOF, model_file
from conftest import SMALL_CLASSES, SMALL_SPEC
from tolerances import FIGURE
from topgb.combining import shrink as shrink_module
from topgb.combining.shrink import BITS, ShrinkOptions, parse_budget, shrink
from topgb.errors import InputError
from topgb.evaluation.opening import open_for
from topgb.evaluation.score import evaluate
from topgb.features import Feature, FeatureSpec
from topgb.modelfile import read_model_file, stored_model
from topgb.records.dataset import open_dataset
from topgb.records.synth import SynthOptions, write_synthetic

BUDGET = 60_000


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    write_synthetic(folder, SMALL_SPEC, SMALL_CLASSES, 120, SynthOptions(frames=(2, 6), seed=4))
    return open_dataset(str(folder / "*.tfrecord"), SMALL_SPEC, SMALL_CLASSES, 300)


@pytest.fixture
def models(tmp_path, monkeypatch):
    # These models have no tensor as large as those of real ones.
    monkeypatch.setattr(shrink_module, "MIN_ELEMENTS", 200)
    wide = {**DBOF, "hidden": 64}
    return [
        model_file(tmp_path / f"{number}.safetensors", section, number)
        for number, section in enumerate((DBOF, DBOF, wide, wide))
    ]


def test_the_file_fits_and_holds_the_choice(tmp_path, models, records):
    out = tmp_path / "small.safetensors"
    found = shrink(models, BUDGET, records, out)
    assert found.file_bytes == out.stat().st_size <= BUDGET
    header, _ = read_model_file(out)
    assert len(header.members) <= len(found.choice.bits)
    assert sum(member.weight for member in header.members) == pytest.approx(1)
    assert header.origin["operation"] == "shrink"
    assert len(header.origin["parents"]) == len(header.members)
    encodings = {entry.encoding for entry in header.tensors.values()}
    assert "int8_zlib" in encodings
    model = topgb.load(out)
    scores = evaluate(model, records, next(model.parameters()).device).compute()
    assert scores.gap == pytest.approx(found.gap, abs=FIGURE)
    assert [choice.gap for choice in found.frontier] == sorted(choice.gap for choice in found.frontier)
    assert found.frontier[-1] == found.choice
    assert not (tmp_path / "small.safetensors.work").exists()


def test_the_same_work_gives_the_same_bytes(tmp_path, models, records):
    outs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for out in outs:
        shrink(models, BUDGET, records, out)
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_a_stopped_run_goes_on(tmp_path, models, records, monkeypatch):
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    shrink(models, BUDGET, records, whole)
    written, write = [], shrink_module._write_candidate

    def stop_at_the_tenth(*arguments):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(arguments[1])
        write(*arguments)

    monkeypatch.setattr(shrink_module, "_write_candidate", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        shrink(models, BUDGET, records, out)
    assert not out.exists()
    monkeypatch.setattr(shrink_module, "_write_candidate", lambda *a: (written.append(a[1]), write(*a)))
    shrink(models, BUDGET, records, out)
    assert len(written) == len(models) * len(BITS)
    assert out.read_bytes() == whole.read_bytes()


def test_work_that_is_kept_serves_another_budget(tmp_path, models, records, monkeypatch):
    work = tmp_path / "work"
    first = shrink(models, BUDGET, records, tmp_path / "a.safetensors", ShrinkOptions(work))
    monkeypatch.setattr(shrink_module, "_write_candidate", None)
    second = shrink(models, first.choice.size - 1, records, tmp_path / "b.safetensors", ShrinkOptions(work))
    assert second.choice != first.choice
    # Other data are other work.
    with pytest.raises(TypeError):
        shrink(models[:1] + models[2:], BUDGET, _Other(records), tmp_path / "c.safetensors", ShrinkOptions(work))


class _Other:
    """The same records under another name."""

    def __init__(self, records):
        self._records = records

    def __getattr__(self, name):
        return getattr(self._records, name)

    def fingerprint(self):
        return [["other", 1, 1]]


def test_members_of_an_ensemble_are_chosen_one_by_one(tmp_path, models, records):
    from topgb.combining.ensemble import ensemble

    both = tmp_path / "both.safetensors"
    ensemble(models[:2], None, both)
    found = shrink([both, models[2]], BUDGET, records, tmp_path / "out.safetensors")
    assert found.member_names == [f"{both}, member 0", f"{both}, member 1", str(models[2])]


def test_one_model_is_shrunk_alone(tmp_path, models, records):
    found = shrink(models[:1], models[0].stat().st_size // 2, records, tmp_path / "out.safetensors")
    assert len(found.choice.bits) == 1


@pytest.fixture
def narrow(tmp_path, monkeypatch):
    """Makes a model whose one large tensor has as many columns as asked for, and records for it."""
    monkeypatch.setattr(shrink_module, "MIN_ELEMENTS", 100)

    def make(columns: int):
        spec, classes = FeatureSpec("frame", (Feature("rgb", columns),)), 200
        section = {"aggregator": "average", "normalization": "none", "head": "logistic"}
        path = model_file(tmp_path / f"{columns}.safetensors", section, features=spec, classes=classes)
        write_synthetic(tmp_path / f"{columns}", spec, classes, 60, SynthOptions(frames=(2, 4)))
        return path, open_for(stored_model(path), f"{tmp_path}/{columns}/*")

    return make


def test_bits_that_cannot_be_reached_are_left_out(tmp_path, narrow):
    path, records = narrow(4)
    found = shrink([path], 1_000_000, records, tmp_path / "out.safetensors")
    # A row of 4 weights takes 20 bits at least, the biases, which are one row, less.
    assert {bits for choice in found.frontier for _, bits in choice.bits} <= {5.0, 7.0}
    path, records = narrow(1)
    with pytest.raises(InputError, match="no member can be stored in 7 bits a weight"):
        shrink([path], 1_000_000, records, tmp_path / "none.safetensors")


def test_what_cannot_be_done_is_refused(tmp_path, models, records):
    out = tmp_path / "out.safetensors"
    with pytest.raises(
        InputError, match=r"nothing fits 1,000 bytes; the smallest member takes [\d,]+; .*\.work is kept$"
    ):
        shrink(models, 1000, records, out)
    assert not out.exists()
    out.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        shrink(models, BUDGET, records, out)
    other = model_file(tmp_path / "other.safetensors", classes=SMALL_CLASSES + 1)
    with pytest.raises(InputError, match="the models differ: classes"):
        shrink([models[0], other], BUDGET, records, tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("text", "size"),
    [("5000000", 5_000_000), ("5MB", 5_000_000), ("1.5 mb", 1_500_000), ("1GiB", 1 << 30), ("20kb", 20_000), ("7B", 7)],
)
def test_budgets_are_read(text, size):
    assert parse_budget(text) == size


@pytest.mark.parametrize("text", ["", "MB", "5 mega", "-5MB", "5MB6", "1e6"])
def test_odd_budgets_are_refused(text):
    with pytest.raises(InputError, match="write it as 100MB, 1GiB or a number of bytes"):
        parse_budget(text)


def test_records_opened_for_shorter_models_are_refused(tmp_path, models, records):
    """Otherwise each member's score would depend on the model that the records were opened for."""
    short = open_for(
        stored_model(model_file(tmp_path / "short", {**DBOF, "max_frames": 3})), str(records.shards[0].path)
    )
    with pytest.raises(InputError, match="opened for models of 3 frames, and a member looks at 300"):
        shrink(models, BUDGET, short, tmp_path / "out.safetensors")

"""Which library multiplies: forced, kept, measured; and that nothing but a command changes the caller's products."""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import topgb
from cli.program import topgb as program
from combining.small_models import model_file
from topgb import matmul_library as matmul
from topgb.batch import Batch
from topgb.errors import InputError, wording
from topgb.jobs.worker import Terms, Worker
from topgb.matmul_library import choose
from topgb.models import Tagger, framesums, gru_steps, penalty
from topgb.models.framesums import weighted_sums
from topgb.models.penalty import block_squares
from topgb.training.run_folder import read_settings
from topgb.version import __version__

pytestmark = pytest.mark.numeric


@pytest.fixture
def unforced(tmp_path, monkeypatch):
    """A cache folder of its own, and no path forced; what the test sets for the process is undone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    yield tmp_path / "topgb" / "matmul.json"
    matmul.use("mkl")
    monkeypatch.undo()
    monkeypatch.setenv(matmul.VARIABLE, "mkl")
    matmul.prefer_faster()


def _speeds(monkeypatch, mkl: float, onednn: float, error: float = 5e-7) -> None:
    speeds = {"mkl": (mkl, 3e-7), "onednn": (onednn, error)}
    monkeypatch.setattr(matmul, "speed", lambda path, shape: speeds[path])


@pytest.mark.parametrize(
    ("mkl", "onednn", "error", "chosen"),
    [(100, 200, 5e-7, "onednn"), (100, 109, 5e-7, "mkl"), (100, 900, 2e-3, "mkl"), (200, 100, 5e-7, "mkl")],
    ids=["faster", "a tie", "in bfloat16", "slower"],
)
def test_the_faster_path_is_chosen_if_it_is_accurate_and_is_kept(unforced, monkeypatch, mkl, onednn, error, chosen):
    _speeds(monkeypatch, mkl, onednn, error)
    assert choose() == (chosen, "measured now")
    _speeds(monkeypatch, onednn, mkl)
    assert choose() == (chosen, f"kept in {unforced}")
    assert [chosen] == list(json.loads(unforced.read_text()).values())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        assert choose().reason == "measured now"
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("content", ["", "[1]", '{"x": 3}', "\x00"])
def test_a_broken_cache_is_written_anew(unforced, monkeypatch, content):
    _speeds(monkeypatch, 100, 200)
    unforced.parent.mkdir()
    unforced.write_text(content)
    assert choose() == ("onednn", "measured now")
    assert choose().reason.startswith("kept")


def test_without_a_folder_to_write_to_nothing_is_timed(unforced, monkeypatch, tmp_path):
    (tmp_path / "topgb").write_text("a file in the folder's place")
    _speeds(monkeypatch, 100, 200)
    for vendor, flags, chosen in (
        ("GenuineIntel", "avx2 avx512f", "mkl"),
        ("AuthenticAMD", "avx2 avx512f avx512_bf16", "onednn"),
        ("AuthenticAMD", "avx2", "mkl"),
        ("AuthenticAMD", "avx512f amx_bf16", "mkl"),
    ):
        cpuinfo = {"vendor_id": vendor, "flags": flags}
        monkeypatch.setattr(matmul, "_cpuinfo", lambda cpuinfo=cpuinfo: cpuinfo)
        found = choose()
        assert found.path == chosen
        assert "cannot be written" in found.reason


@pytest.mark.parametrize("home", ["~", "/proc/nobody"])
def test_without_a_home_nothing_is_timed(unforced, monkeypatch, tmp_path, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(os.path, "expanduser", lambda path: home)
    assert "cannot be written" in choose().reason
    assert os.listdir(tmp_path) == []


def test_the_variable_forces_a_path_and_a_wrong_one_is_refused(unforced, monkeypatch):
    for path in ("mkl", "onednn"):
        monkeypatch.setenv(matmul.VARIABLE, path)
        assert choose() == (path, "set by TOPGB_MATMUL")
    monkeypatch.setenv(matmul.VARIABLE, "blas")
    with pytest.raises(InputError, match="TOPGB_MATMUL is 'blas'; set it to mkl or onednn, or unset it"):
        choose()
    assert not unforced.exists()


def test_this_machine_can_be_measured(unforced):
    assert choose().path in ("mkl", "onednn")
    assert torch.get_float32_matmul_precision() == "highest"
    assert matmul.speed("mkl", (64, 64, 64))[1] < matmul.MOST_ERROR


def test_a_prediction_prefers_a_library_without_setting_it(unforced, monkeypatch):
    state = torch.get_rng_state()
    matmul.prefer_faster()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_float32_matmul_precision() == "highest"
    ((key, kept),) = json.loads(unforced.read_text()).items()
    assert key.startswith("prediction, ")
    assert matmul.prefers_onednn() == (kept == "onednn")
    monkeypatch.setattr(matmul, "_measured_linear", lambda: pytest.fail("it is kept"))
    matmul.prefer_faster()


def test_without_a_cache_a_prediction_leaves_the_process_alone(unforced, monkeypatch, tmp_path):
    (tmp_path / "topgb").write_text("a file in the folder's place")
    monkeypatch.setattr(matmul, "_set", lambda path: pytest.fail("the caller's own setting would be lost"))
    matmul.prefer_faster()
    assert not matmul.prefers_onednn()
    monkeypatch.undo()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.parametrize("shape", [(1, 300), (200, 300), (3, 7, 300), (5, 309, 300), (0, 300)])
@pytest.mark.parametrize("strided", [False, True])
def test_both_libraries_products_are_those_of_float32(unforced, monkeypatch, shape, strided):
    values = torch.randn(*shape[:-1], 310, generator=torch.Generator().manual_seed(0))[..., :300]
    values = values if strided else values.contiguous()
    weight, bias = torch.nn.init.normal_(torch.empty(70, 300)), torch.ones(70)
    expected = torch.nn.functional.linear(values.double(), weight.double(), bias.double())
    for path in ("mkl", "onednn"):
        monkeypatch.setenv(matmul.VARIABLE, path)
        matmul.prefer_faster()
        with torch.inference_mode():
            found = matmul.linear(values, weight, bias)
        assert matmul.prefers_onednn() == (path == "onednn")
        # Sums of 300 products of float32 in any order.
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
def test_a_prediction_has_few_products_by_onednn(unforced, monkeypatch):
    monkeypatch.setenv(matmul.VARIABLE, "onednn")
    matmul.prefer_faster()
    weight, rows = torch.ones(3, 20), set()

    def noted(values, *others):
        rows.add(len(values))
        return torch.nn.functional.linear(values, *others)

    monkeypatch.setattr(matmul, "onednn_linear", noted)
    with torch.inference_mode():
        for videos in (1, 2, 7, 32):
            for frames in range(1, 300, 7):
                assert matmul.linear(torch.ones(videos, frames, 20), weight, None).eq(20).all()
    assert rows == set(matmul.BLOCKS)


@pytest.mark.parametrize("path", ["mkl", "onednn"])
def test_squares_are_in_float32_by_either_path(unforced, monkeypatch, path):
    monkeypatch.setattr(penalty, "BLOCK", 1000)
    values = torch.randn(47, 53, generator=torch.Generator().manual_seed(0))
    matmul.use(path)
    found = block_squares(values)
    assert len(found) == 3
    torch.testing.assert_close(torch.stack(found).sum().double(), values.double().square().sum(), rtol=1e-6, atol=0)
    assert torch.get_float32_matmul_precision() == ("medium" if path == "onednn" else "highest")


def test_the_api_leaves_the_callers_products_alone(unforced, monkeypatch, tmp_path, small_records):
    # As if oneDNN were faster here: a command sets it for its process, a call only calls it itself.
    _speeds(monkeypatch, 100, 200)
    monkeypatch.setattr(matmul, "_measured_linear", lambda: "onednn")
    own = torch.nn.Linear(300, 200)
    inputs = torch.randn(70, 300)
    before, seen = own(inputs), []
    predict_batch = Tagger.predict_batch

    def watched(tagger: Tagger, batch: Batch) -> torch.Tensor:
        seen.append((matmul.in_use(), own(inputs)))
        return predict_batch(tagger, batch)

    monkeypatch.setattr(Tagger, "predict_batch", watched)
    file, data = model_file(tmp_path / "model.safetensors"), small_records["validate"]
    topgb.evaluate(file, data, progress=False)
    topgb.predict(file, data, progress=False)
    during = len(seen)
    seen.append((matmul.in_use(), own(inputs)))
    assert during > 1
    assert matmul.prefers_onednn()
    assert all(path == "mkl" and torch.equal(outputs, before) for path, outputs in seen)
    seen.clear()
    assert program("eval", str(file), data).returncode == 0
    assert {path for path, _ in seen} == {"onednn"}


def test_a_run_goes_on_by_the_path_it_began_with(unforced, monkeypatch, tmp_path, small_records, small_recipe):
    monkeypatch.setenv(matmul.VARIABLE, "onednn")
    call = ("train", small_recipe, "--data", small_records["train"], "--out", tmp_path / "run")
    call = (*call, "--set", "training.epochs=1")
    assert program(*call).returncode == 0
    assert read_settings(tmp_path / "run")["matmul"] == "onednn"
    matmul.use("mkl")
    monkeypatch.setenv(matmul.VARIABLE, "mkl")
    refused = program(*call, "--resume")
    assert refused.returncode == 2
    assert "was started with matmul = 'onednn', now it is None; set TOPGB_MATMUL=onednn to resume" in refused.stderr
    monkeypatch.setenv(matmul.VARIABLE, "onednn")
    assert program(*call, "--resume").returncode == 0


@pytest.mark.parametrize(("gpus", "expected"), [(False, "onednn"), (True, "mkl")])
def test_workers_on_a_cluster_multiply_as_the_command_does(unforced, monkeypatch, gpus, expected):
    nodes = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.1")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(util=nodes))
    terms = Terms(__version__, os.getcwd(), (), wording(), None if gpus else "onednn")
    assert Worker().open(pickle.dumps(len), terms, torch.get_num_threads()) == "10.0.0.1"
    assert matmul.in_use() == expected


def test_doctor_says_what_there_is(unforced, monkeypatch):
    monkeypatch.setattr("topgb.cli.doctor.SHAPES", ((64, 64, 64),))
    done = program("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__
    assert found["matmul"].split()[0] in ("mkl", "onednn")
    assert any("float32 by onednn" in line for line in found["GFLOP/s"])
    assert os.fspath(unforced) in found["matmul"] or "measured now" in found["matmul"]
    assert "processor" in program("doctor").stdout


def test_a_block_goes_to_mkl(unforced):
    before = torch.get_float32_matmul_precision()
    matmul.use("onednn")
    with pytest.raises(InputError), matmul.by_mkl():
        assert torch.get_float32_matmul_precision() == "highest"
        raise InputError("stopped")
    assert torch.get_float32_matmul_precision() == "medium"
    matmul.use("mkl")
    # The caller's own setting.
    torch.set_float32_matmul_precision("high")
    with matmul.by_mkl():
        assert torch.get_float32_matmul_precision() == "high"
    torch.set_float32_matmul_precision(before)


class Settings(TorchDispatchMode):
    """Notes which setting of the process each product finds."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in (torch.ops.aten.bmm, torch.ops.aten.mm, torch.ops.aten.addmm_):
            self.found.add(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("width", "clusters", "setting"),
    [(4, framesums.FEW_WEIGHTS, "highest"), (4, framesums.FEW_WEIGHTS + 1, "medium"), (6, 3, "medium")],
    ids=["one feature of two", "with many clusters", "all features"],
)
def test_frames_that_onednn_would_copy_go_to_mkl(width, clusters, setting, unforced):
    matmul.use("onednn")
    frames, weights = torch.rand(2, 5, 6)[:, :, :width], torch.rand(2, 5, clusters, requires_grad=True)
    with Settings() as settings:
        weighted_sums(frames, weights).sum().backward()
    assert settings.found == {setting}
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize(("least", "setting"), [(2 * 2 * 18, "medium"), (2 * 2 * 18 + 1, "highest")])
def test_small_steps_of_a_gru_go_to_mkl(least, setting, unforced, monkeypatch):
    matmul.use("onednn")
    monkeypatch.setattr(gru_steps, "SMALL_PRODUCT", least)
    projected, gates, candidate = torch.rand(4 * 2, 9), torch.rand(6, 3), torch.rand(3, 3)
    with Settings() as settings:
        gru_steps.ResetBefore.apply(projected, gates, candidate, 4, False)
    assert settings.found == {setting}


PRODUCTS_OF_MANY_SHAPES = """
import sys, torch
from pathlib import Path
from topgb.matmul_library import keep_few_products, onednn_linear
def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])
if sys.argv[1] == "few":
    keep_few_products()
values, weight = torch.ones(500, 64), torch.ones(48, 64)
with torch.inference_mode():
    onednn_linear(values, weight, None)
    before = pages()
    for rows in range(1, 500):
        onednn_linear(values[:rows], weight, None)
print(pages() - before)
"""


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_products_of_many_shapes_take_bounded_memory():
    """By default each shape takes some half a megabyte: here at least twice as much as of 64 shapes."""
    environment = {name: value for name, value in os.environ.items() if name not in matmul.KEPT_PRODUCTS}
    few, all_of_them = (
        int(
            subprocess.run(
                [sys.executable, "-c", PRODUCTS_OF_MANY_SHAPES, which],
                check=True,
                capture_output=True,
                text=True,
                env=environment,
            ).stdout
        )
        for which in ("few", "all")
    )
    assert few < all_of_them / 2


def test_what_the_environment_says_of_kept_products_stays(monkeypatch):
    name, other = matmul.KEPT_PRODUCTS
    environment = {name: "7"}
    monkeypatch.setattr(os, "environ", environment)
    matmul.keep_few_products()
    assert environment == {name: "7", other: matmul.KEPT_PRODUCTS[other]}

"""Models at a URL: downloaded once, wherever a model is named, and read as any stranger's file is."""

import os
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

import topgb
from cli.program import topgb as program
from combining.small_models import AUDIO, DBOF, model_file, videos
from hub_server import hub_server
from topgb.modelfile.fetched import file_name, url_of
from topgb.training.opened import beside, open_stored

RESOLVED = "/owner/name/resolve/main/models/m.safetensors"
HUB = "hf://owner/name/models/m.safetensors"


@pytest.fixture
def model(tmp_path) -> Path:
    return model_file(tmp_path / "m.safetensors", DBOF)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "topgb" / "models"


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """A hub that holds `model`: its address, what was asked of it, and the files that it has."""
    pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")
    from huggingface_hub import constants

    files = {RESOLVED: model.read_bytes(), RESOLVED.replace("main", "v2"): model.read_bytes()}
    with hub_server(files) as (address, requests):
        # What the package makes of HF_ENDPOINT and HF_HUB_CACHE, which it reads when it is imported.
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield address, requests, files


def test_a_model_of_the_hub_is_downloaded_once(hub, model):
    _, requests, _ = hub
    expected = topgb.load(model).predict(videos())
    assert (topgb.load(HUB).predict(videos()) == expected).all()
    assert (topgb.load(HUB).predict(videos()) == expected).all()
    assert requests.count(f"GET {RESOLVED}") == 1
    topgb.load("hf://owner/name@v2/models/m.safetensors")
    assert f"HEAD {RESOLVED.replace('main', 'v2')}" in requests


def test_hf_endpoint_names_the_hub(hub, model, tmp_path):
    code = f"from topgb.modelfile.fetched import fetched; print(fetched({HUB!r}))"
    env = {**os.environ, "HF_ENDPOINT": hub[0], "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == model.read_bytes()
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "home")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("hf://owner/name/absent.safetensors", "there is no file hf://owner/name/absent.safetensors"),
        ("hf://owner/other/m.safetensors", "there is no file hf://owner/other/m.safetensors, or it is private"),
        ("hf://owner/name", "names no file; say hf://OWNER/NAME/FILE"),
        ("hf://ow--ner/na me/m.safetensors", "is no address of the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_said_in_a_sentence(hub, url, words):
    with pytest.raises(topgb.InputError, match=words):
        topgb.load(url)


def test_a_hub_that_does_not_answer_is_said_in_a_sentence(hub, monkeypatch):
    from huggingface_hub import constants

    topgb.load(HUB)
    # As HF_HUB_OFFLINE does it; against a dead address the package tries for half a minute.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # What is in the cache needs no hub.
    topgb.load(HUB)
    with pytest.raises(topgb.TopgbError, match="the hub does not answer, and no copy is in the cache"):
        topgb.load("hf://owner/name/other.safetensors")


def test_without_the_extra_hub_one_sentence_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(topgb.InputError, match=r"needs huggingface_hub, which is not installed here; .*'.\[hub\]'"):
        topgb.load(HUB)


def test_a_model_at_any_address_is_downloaded_once_for_each_version(model, cache):
    memory = fsspec.filesystem("memory")
    memory.pipe("/topgb/m.safetensors", model.read_bytes())
    expected = topgb.load(model).predict(videos())
    for _ in range(2):
        assert (topgb.load("memory://topgb/m.safetensors").predict(videos()) == expected).all()
    [copy] = cache.glob("*/*")
    assert copy.name == "m.safetensors"
    other = model_file(model.with_name("other.safetensors"), AUDIO)
    memory.pipe("/topgb/m.safetensors", other.read_bytes())
    topgb.load("memory://topgb/m.safetensors")
    assert len(list(cache.glob("*/*"))) == 2
    assert copy.read_bytes() == model.read_bytes()


def test_a_model_behind_http_is_downloaded_once(model):
    pytest.importorskip("aiohttp")
    with hub_server({"/m.safetensors": model.read_bytes()}) as (address, requests):
        for _ in range(2):
            open_stored(Path(f"{address}/m.safetensors"))
        assert requests.count("GET /m.safetensors") == 1
        with pytest.raises(topgb.InputError, match=f"there is no file {address}/absent; check the address"):
            topgb.load(f"{address}/absent")
    with pytest.raises(topgb.TopgbError, match=r"cannot read http://127.0.0.1:9/m.safetensors: .*check the address"):
        topgb.load("http://127.0.0.1:9/m.safetensors")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://topgb/absent", "there is no file memory://topgb/absent; check the address"),
        ("memory://topgb", "memory://topgb is a folder; name a model file"),
        ("nowhere://x/m.safetensors", "cannot read nowhere://x/m.safetensors: .*nowhere"),
    ],
)
def test_other_addresses_without_a_model_are_refused(url, words):
    fsspec.filesystem("memory").pipe("/topgb/some", b"")
    with pytest.raises(topgb.InputError, match=words):
        topgb.load(url)


def test_what_was_downloaded_is_trusted_no_more_than_a_file(hub):
    files = hub[2]
    files[RESOLVED] = b"\x80\x04K\x01."
    fsspec.filesystem("memory").pipe("/topgb/bad.safetensors", files[RESOLVED])
    for url in (HUB, "memory://topgb/bad.safetensors"):
        with pytest.raises(topgb.InputError, match="safetensors"):
            topgb.load(url)


def test_commands_take_urls_and_write_beside_nothing_remote(hub, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = program("model", "show", HUB)
    assert done.returncode == 0, done.stderr
    with pytest.raises(topgb.InputError, match=r"use_ema.* and hf://owner/name/models/m.safetensors is a file"):
        topgb.load(HUB, use_ema=True)
    assert beside(Path(HUB)) == Path("m.safetensors")
    small = topgb.quantize(HUB, tmp_path / "small.safetensors", method="int8", min_elements=10, progress=False)
    assert small.bytes_before == model.stat().st_size
    assert not list(tmp_path.glob("hf:*"))


def test_what_is_a_path_is_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("m.safetensors", "C:/m.safetensors", "a b:/c", "/hf://x", "./hf://x"):
        assert url_of(Path(path).absolute() if path.startswith(".") else Path(path)) is None
    assert url_of(Path("s3://bucket/a/m.safetensors")) == "s3://bucket/a/m.safetensors"
    (tmp_path / "hf:" / "o").mkdir(parents=True)
    assert url_of(Path("file:///a/m.safetensors")) == "file:///a/m.safetensors"
    assert url_of(Path("hf://o")) is None
    names = {"https://h/a/m.st?x=1": "m.st", "https://h/%2e%2e": "model.safetensors", "memory://a%2Fb": "b"}
    assert {url: file_name(url) for url in names} == names


def test_signed_addresses_and_long_names_are_taken(model, cache):
    name = 100 * "ü" + ".safetensors"
    fsspec.filesystem("memory").pipe(f"/topgb/{name}", model.read_bytes())
    assert topgb.load(f"memory://topgb/{name}").classes == topgb.load(model).classes
    assert len(list(cache.glob("*/*.safetensors"))) == 1
    signed = f"https://h/m.safetensors?signature={2000 * 'a'}"
    assert url_of(Path(signed)) == signed
    assert file_name(signed) == "m.safetensors"

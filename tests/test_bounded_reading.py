"""JSON and YAML that strangers write: read, or refused soon, whichever command meets it."""

import json
import time

import pytest

from cli.program import topgb
from conftest import SHARED
from topgb.errors import InputError
from topgb.json_reading import parse_json, read_json
from topgb.records.description import read_description
from topgb.training.recipe import load_recipe, overridden_keys
from topgb.training.run_folder import read_settings
from topgb.yaml_reading import MOST_VALUES, parse_yaml, read_yaml

SECONDS = 5
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12)
)
BOMBS = {
    "aliases": (LAUGHS, "more than 10,000 values"),
    "merges": (MERGES, "more than 10,000 values"),
    "itself": ("a: &a [*a]", "holds itself"),
    "keys": ("".join(f"k{n}: 1\n" for n in range(40_000)), "values|longer than"),
    "keys of one hash": ("{" + ", ".join(f"{n * (2**61 - 1)}: 1" for n in range(4_000)) + "}", None),
    "deep lists": ("[" * 100_000, "levels deep"),
    "deep mappings": ("{a: " * 60_000, "levels deep"),
    "deep blocks": ("- " * 100_000 + "1", "levels deep"),
    "a long number": ("1" * 100_000, "characters"),
    "base 60": (":".join(["1"] * 100_000), "characters"),
    "twice": ("a: 1\n'a': 2", "twice"),
    "long": ("#" * (1 << 19), "longer than"),
    "tag of nothing": ('!!int ""', "suit its tag"),
    "tag that is no boolean": ("!!bool x", "suit its tag"),
    "tag that is no date": ("!!timestamp x", "suit its tag"),
    "tag that is code": ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_yaml_is_refused_soon(bomb, tmp_path):
    text, words = BOMBS[bomb]
    start = time.monotonic()
    if words is None:
        parse_yaml(text)
    else:
        with pytest.raises(ValueError, match=words) as caught:
            parse_yaml(text)
        assert str(caught.value).isprintable()
        (tmp_path / "dataset.yaml").write_text(text)
        for read in (load_recipe, read_description):
            with pytest.raises(InputError, match="dataset.yaml"):
                read(tmp_path / "dataset.yaml" if read is read_description else str(tmp_path / "dataset.yaml"))
    assert time.monotonic() - start < 3 * SECONDS


def test_yaml_of_honest_files():
    value = parse_yaml("low: &low {x: 2e-4, y: .5e3}\nhigh: {<<: *low, y: 1_000}\nagain: [*low, *low]\n")
    assert value["low"] == {"x": 2e-4, "y": 500.0}
    assert value["high"] == {"x": 2e-4, "y": 1000}
    assert value["again"] == [value["low"]] * 2
    assert len(parse_yaml("\n".join(f"k{n}: 1" for n in range(MOST_VALUES // 2 - 1)))) == MOST_VALUES // 2 - 1


@pytest.mark.parametrize("name", ["ds1", "ds3"])
def test_a_strangers_description(name, tmp_path):
    folder = SHARED / "cases" / "hostile" / name
    if not folder.is_dir():
        pytest.skip("the cases (../shared/cases beside the checkout) are absent")
    start = time.monotonic()
    done = topgb("train", "own-frames", "--data", folder / "train0000.tfrecord", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "dataset.yaml does not describe records: it is not YAML" in done.stderr
    assert time.monotonic() - start < SECONDS


def test_a_bomb_in_a_setting():
    with pytest.raises(InputError, match="levels deep"):
        overridden_keys(["model.clusters=" + "[" * 100_000])


DEEP = {"lists": "[" * 100_000 + "]" * 100_000, "mappings": '{"a":' * 100_000 + "1" + "}" * 100_000}


@pytest.mark.parametrize("deep", DEEP)
def test_json_that_is_deep(deep, tmp_path):
    with pytest.raises(ValueError, match="50 levels"):
        parse_json(DEEP[deep])
    (tmp_path / "settings.json").write_text(DEEP[deep])
    with pytest.raises(InputError, match="settings.json"):
        read_settings(tmp_path)


@pytest.mark.parametrize("text", ["NaN", "[1e400]", "-Infinity", "1" * 5000, '"\ud800', "", "[1,]"])
def test_json_that_is_none(text):
    with pytest.raises(ValueError, match="."):
        parse_json(text)


def test_json_that_is_large(tmp_path):
    with pytest.raises(ValueError, match="more than 4,000,000 values"):
        parse_json("[" + "0," * 4_000_001 + "0]")
    path = tmp_path / "large.json"
    path.write_bytes(b" " * 101)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        read_json(path, most_bytes=100)
    path.write_text(json.dumps({"é": [1, None, "x", 0.5]}, ensure_ascii=False))
    assert read_json(path) == {"é": [1, None, "x", 0.5]}


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "odd"
    path.write_bytes(b"a: \xff")
    for read in (read_json, read_yaml):
        with pytest.raises(ValueError, match="utf-8"):
            read(path)

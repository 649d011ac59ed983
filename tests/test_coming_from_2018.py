"""docs/coming-from-2018.md says of every 2018 flag and class what the code makes of it."""

import re
from pathlib import Path
from typing import Any

import pytest

from cli.program import topgb
from topgb.errors import InputError
from topgb.from2018.flags import DEFAULT_FLAGS, WITHOUT_EFFECT, known_models, section_from_flags
from topgb.training.recipe import Recipe

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "coming-from-2018.md").read_text()
ROWS = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in PAGE.splitlines() if line[:3] == "| `"]
OTHER_VALUES = {
    "video_level_classifier_model": "LogisticModel",
    "dbof_pooling_method": "average",
    "moe_prob_gating_input": "input",
    "moe_low_rank_gating": 16,
}


def _now(name: str) -> str:
    """What the page says has become of a flag or a class."""
    [now] = [now for before, now in ROWS if f"`{name}`" in before]
    return now


def _keys(section: dict[str, Any]) -> dict[str, Any]:
    head = {f"model.head.{key}": value for key, value in section["head"].items()}
    return head | {f"model.{key}": value for key, value in section.items() if key != "head"}


@pytest.mark.parametrize("flag", sorted(DEFAULT_FLAGS))
def test_a_flag_is_the_key_that_the_page_says(flag):
    default = DEFAULT_FLAGS[flag]
    other = OTHER_VALUES[flag] if flag in OTHER_VALUES else not default if type(default) is bool else default * 2
    # Some flags act only where gates are.
    with_gates = {"gating": True, "moe_prob_gating": True} if flag.endswith(("remove_diag", "gating_input")) else {}
    changed: set[str] = set()
    for model in known_models():
        try:
            before = _keys(section_from_flags(model, with_gates))
            after = _keys(section_from_flags(model, {**with_gates, flag: other}))
        except InputError:
            # What the 2018 code itself could not build is refused, and is nowhere on the page.
            continue
        if before["model.head.name"] == after.get("model.head.name"):
            changed |= {key for key in before if before[key] != after[key]}
        else:
            changed.add("model.head.name")
    assert changed == set(re.findall(r"`(model\.[\w.]+)`", _now(flag)))


@pytest.mark.parametrize("flag", sorted(WITHOUT_EFFECT))
def test_a_flag_without_effect_on_models_is_on_the_page(flag):
    assert "training.frames" in _now(flag) or _now(flag).startswith("gone")


@pytest.mark.parametrize("model", known_models())
def test_a_class_is_the_aggregator_that_the_page_says(model):
    assert _now(model).startswith(f"`{section_from_flags(model, {})['aggregator']}`")


def test_recipe_keys_on_the_page_exist():
    keys = re.findall(r"`(data|training|optimizer|ema)\.(\w+)`", PAGE)
    assert len(keys) > 10
    for section, key in keys:
        annotation = Recipe.model_fields[section].annotation
        schemas = [annotation, *getattr(annotation, "__args__", ())]
        assert any(key in getattr(schema, "model_fields", {}) for schema in schemas), key


FLAGS = sorted({flag for before, _ in ROWS for flag in re.findall(r"`([a-z]\w*)`", before)} | {"model", "run_once"})


def test_a_pasted_command_of_2018_is_told_where_to_look(tmp_path):
    assert len(FLAGS) > 60
    for flag in FLAGS:
        done = topgb("train", f"--{flag}=1", "--train_dir", tmp_path)
        assert done.returncode == 2, flag
        assert "docs/coming-from-2018.md" in done.stderr, flag
        here = f"--{flag.replace('_', '-')}"
        assert f"{here} now" in done.stderr or f"--{flag} is a flag of 2018" in done.stderr, flag
    said = topgb("model", "quantize", "m", "--out", "q", "--method", "int8", "--min_elements", "5").stderr
    assert "--min_elements is written --min-elements now" in said
    assert "docs/coming" not in topgb("train", "--modle", "x").stderr

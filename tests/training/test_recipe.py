"""Recipes: what is read, what is refused and how it is said; and every shipped one."""

from pathlib import Path

import pytest
import torch
import yaml

import topgb
from topgb.errors import InputError
from topgb.models import build_tagger
from topgb.training.recipe import Optimizer, load_recipe, overridden_keys, parse_recipe, shipped_recipes
from topgb.training.schedule import learning_rate


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_build_and_say_how_to_run_them(name):
    text = (Path(topgb.__file__).parent / "recipes" / f"{name}.yaml").read_text()
    assert "#   topgb " in text.partition("data:")[0], "a recipe's header says its command"
    recipe = load_recipe(name)
    with torch.device("meta"):
        build_tagger(recipe.data.spec(), recipe.data.classes, recipe.model_section())
    assert parse_recipe(recipe.to_json()) == parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_json())))


def test_overrides_reach_every_section():
    recipe = load_recipe(
        "demo",
        ["model.clusters=64", "model.head.mixtures=4", "optimizer.learning_rate=2e-4", "ema=null", "data.classes=7"],
    )
    assert recipe.model_section().aggregator_options.clusters == 64
    assert recipe.model_section().head_options.mixtures == 4
    assert recipe.optimizer.learning_rate == 2e-4
    assert recipe.ema is None
    assert recipe.data.classes == 7


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epcohs=3", "unknown key 'training.epcohs'; did you mean 'epochs'. training knows: .*epochs"),
        ("training.epochs=three", "'training.epochs' is 'three'"),
        ("training.epochs=2.5", "'training.epochs' is 2.5"),
        ("training.epochs=0", "'training.epochs' is 0"),
        ("model.clutsers=3", "unknown key 'model.clutsers'"),
        ("training.loss=mixed", "'training.loss' is 'mixed'"),
        ("optimizer.schedule=linear", "'optimizer.schedule' is 'linear'"),
        ("data.features=[{name: rgb}]", "'data.features.0.size' is missing"),
        ("data.features=[{name: rgb, size: 3, typ: 1}]", "unknown key 'data.features.0.typ'"),
        ("surprise=1", "unknown key 'surprise'"),
        ("training.batch_size", "KEY=VALUE"),
        ("training.batch_size.x=1", "'batch_size' is not a section of the recipe, but a single value"),
        ("training.frames=[", "not YAML"),
        ("training.seed=2020-13-45", "not YAML"),
        ("training={epochs: 1, epochs: 2}", "'epochs' stands there twice"),
        ("training.seed=4294967296", "training.seed"),
        ("ema.halflife=.inf", "ema.halflife"),
        ("training=" + "[" * 3000, "not YAML"),
    ],
)
def test_a_wrong_override_names_the_key(override, words):
    with pytest.raises(InputError, match=words) as raised:
        load_recipe("demo", [override])
    assert "\n" not in str(raised.value)


def test_a_recipe_can_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(load_recipe("demo").to_json()))
    assert load_recipe(str(path)).to_json() == load_recipe("demo").to_json()
    for text in ("- a\n- list", ""):
        path.write_text(text)
        with pytest.raises(InputError, match=f"{path} is not a recipe"):
            load_recipe(str(path))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        load_recipe(str(path))
    with pytest.raises(InputError, match="no recipe 'absent'; it is.*yt8m-video"):
        load_recipe("absent")
    with pytest.raises(InputError, match="no recipe 'own-frame'; did you mean 'own-frames'"):
        load_recipe("own-frame")


def test_overridden_keys_are_found_in_sections_too():
    overrides = ["optimizer={learning_rate: 1, clip_norm: 2}", "training.epochs=3", "ema=null"]
    keys = {"optimizer.learning_rate", "optimizer.clip_norm", "training.epochs", "ema"}
    assert overridden_keys(overrides) == keys


def test_staircase_counts_examples():
    optimizer = Optimizer(learning_rate=1.0, decay=0.5, decay_examples=100)
    assert [learning_rate(optimizer, seen, 400) for seen in (0, 99, 100, 250)] == [1.0, 1.0, 0.5, 0.25]


def test_cosine_ends_at_zero_and_warmup_starts_near_it():
    optimizer = Optimizer(learning_rate=1.0, schedule="cosine", warmup=0.1)
    rates = [learning_rate(optimizer, seen, 1000) for seen in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 100
    assert rates[-1] < 1e-5

"""The recipes of 2018, nine of the winners and two of the third: as large as the originals, and with true headers."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
import torch

import topgb
from topgb.features import YOUTUBE8M_CLASSES, YOUTUBE8M_FRAMES
from topgb.from2018.flags import config_from_flags
from topgb.models import build_tagger
from topgb.training.ema import continued_recipe
from topgb.training.recipe import load_recipe, overridden_keys

PARAMETERS = {
    "netvlad1": 321_528_380,
    "netvlad2": 242_718_556,
    "netfv": 369_059_888,
    "gated-dbof1": 37_168_940,
    "gated-dbof2": 59_287_340,
    "gated-dbof3": 32_980_412,
    "rnn1": 19_171_094,
    "rnn2": 19_171_094,
    "rnn3": 15_367_958,
    "nextvlad": 88_889_378,
    "mix-nextvlad": 235_935_273,
}

GATED = {"gating": True, "moe_l2": 1e-6, "moe_prob_gating": True}
NETVLAD = {**GATED, "netvlad_relu": False}
BAG = {"moe_l2": 1e-6, "dbof_relu": False}
RECURRENT = {"video_level_classifier_model": "LogisticModel", "lstm_cells": 1024}
FLAGS = {
    "netvlad1": ("NetVLADModelLF", {**NETVLAD, "netvlad_cluster_size": 256, "netvlad_hidden_size": 1024}),
    "netvlad2": ("NetVLADModelLF", {**NETVLAD, "netvlad_cluster_size": 192, "netvlad_hidden_size": 992}),
    "netfv": (
        "NetFVModelLF",
        {**GATED, "fv_relu": False, "fv_couple_weights": False, "fv_cluster_size": 96, "fv_hidden_size": 1540},
    ),
    "gated-dbof1": ("GatedDbofModelLF", {**BAG, "dbof_cluster_size": 4096, "dbof_hidden_size": 1024}),
    "gated-dbof2": ("GatedDbofModelLF", {**BAG, "dbof_cluster_size": 6144, "dbof_hidden_size": 1536}),
    "gated-dbof3": ("GatedDbofModelLF", {**BAG, "dbof_cluster_size": 3684, "dbof_hidden_size": 920}),
    "rnn1": ("Lstmbidirect", RECURRENT),
    "rnn2": ("Lstmbidirect", RECURRENT),
    "rnn3": ("GRUbidirect", RECURRENT),
}

# Videos of a step on all GPUs together, learning rate, decay, epochs.
TRAINING = {
    "netvlad1": (160, 2e-4, 0.8, 10),
    "netvlad2": (160, 2e-4, 0.8, 10),
    "netfv": (80, 2e-4, 0.8, 10),
    "gated-dbof1": (80, 2e-4, 0.95, 10),
    "gated-dbof2": (80, 2e-4, 0.95, 10),
    "gated-dbof3": (80, 2e-4, 0.95, 10),
    "rnn1": (512, 8e-5, 0.95, 2),
    "rnn2": (256, 2e-4, 0.95, 20),
    "rnn3": (440, 8e-5, 0.95, 2),
}


def _header(name: str) -> str:
    """The comment at the head of a recipe, without the marks."""
    text = (Path(topgb.__file__).parent / "recipes" / f"{name}.yaml").read_text()
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.partition("data:")[0].splitlines())


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_has_as_many_parameters_as_the_original(name):
    recipe = load_recipe(name)
    assert recipe.data.spec() == YOUTUBE8M_FRAMES
    assert recipe.data.classes == YOUTUBE8M_CLASSES
    with torch.device("meta"):
        tagger = build_tagger(recipe.data.spec(), recipe.data.classes, recipe.model_section())
    assert sum(parameter.numel() for parameter in tagger.parameters()) == PARAMETERS[name]


def test_the_recurrent_counts_follow_from_the_cells():
    width, cells, half, classes = 1024 + 128, 1024, 512, 3862
    output = (cells + 1) * classes
    for gates, name in ((4, "rnn2"), (3, "rnn3")):
        both = 2 * gates * half * (width + half + 1)
        top = gates * cells * (cells + cells + 1)
        assert both + top + output == PARAMETERS[name]


def test_the_nextvlad_counts_follow_from_the_sizes():
    classes, hidden = 3862, 2048

    def nextvlad(clusters: int, reduction: int) -> int:
        joined = total = 0
        for width, groups, k in ((1024, 8, clusters), (128, 4, clusters // 2)):
            expanded = 2 * width
            descriptor = k * expanded // groups
            total += (width + 1) * expanded + (expanded + 1) * groups + descriptor
            # The assignment and its batch norm, the descriptor's batch norm.
            total += (expanded + 2) * groups * k + 2 * descriptor
            joined += descriptor
        narrow = hidden // reduction
        gates = 2 * hidden * narrow + 2 * narrow
        return total + (joined + 2) * hidden + gates + (hidden + 1) * classes

    assert nextvlad(128, 8) == PARAMETERS["nextvlad"]
    gate = 2 * (1024 + 128) + 3 * (1024 + 128 + 1)
    assert 3 * nextvlad(112, 16) + gate == PARAMETERS["mix-nextvlad"]
    # The figures that its authors published.
    assert round(nextvlad(128, 8) / 1e6) == 89
    assert round(nextvlad(112, 16) / 1e6) == 79
    assert round(PARAMETERS["mix-nextvlad"] * 4 / 1e6) == 944


@pytest.mark.parametrize("name", FLAGS)
def test_it_is_what_the_flags_of_2018_build(name):
    assert load_recipe(name).model_section() == config_from_flags(*FLAGS[name])


@pytest.mark.parametrize("name", TRAINING)
def test_it_is_trained_as_in_2018(name):
    recipe = load_recipe(name)
    training, optimizer = recipe.training, recipe.optimizer
    assert (training.batch_size, optimizer.learning_rate, optimizer.decay, training.epochs) == TRAINING[name]
    assert (optimizer.schedule, optimizer.decay_examples) == ("staircase", 4_000_000)
    # Two GPUs' gradients were summed before they were clipped; here their mean is.
    assert optimizer.clip_norm == (0.5 if name in ("rnn1", "rnn3") else 1.0)
    assert training.frames == ("all" if name.startswith("rnn") else "random:300")
    assert training.batch_norm_momentum == 0.999
    assert not training.start_at_class_frequencies


@pytest.mark.parametrize(("name", "decay_examples", "epochs"), [("nextvlad", 2e6, 5), ("mix-nextvlad", 2.5e6, 15)])
def test_the_third_is_trained_as_in_2018(name, decay_examples, epochs):
    recipe = load_recipe(name)
    training, optimizer = recipe.training, recipe.optimizer
    assert (training.batch_size, training.frames, training.epochs) == (160, "random:300", epochs)
    assert (optimizer.learning_rate, optimizer.schedule, optimizer.decay) == (2e-4, "staircase", 0.8)
    assert (optimizer.decay_examples, optimizer.clip_norm) == (decay_examples, 0.5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_its_header_says_how_large_it_is(name):
    said = re.search(r"([\d,]+) parameters: (.+) at 32 bits, (.+) at 16, (.+) at 8\.", _header(name))
    assert int(said[1].replace(",", "")) == PARAMETERS[name]
    for text, width in zip(said.groups()[1:], (4, 2, 1), strict=True):
        number, unit = text.split()
        size = PARAMETERS[name] * width
        assert float(number) * {"GB": 1e9, "MB": 1e6}[unit] == pytest.approx(size, rel=0.005)
        assert unit == ("GB" if size >= 1e9 else "MB")


@pytest.mark.parametrize("name", PARAMETERS)
def test_its_headers_commands_are_understood(name):
    for words, settings in _commands(name):
        assert words[2] == name
        load_recipe(name, settings)


@pytest.mark.parametrize("name", ["rnn1", "rnn3"])
def test_its_headers_command_continues_a_model_at_the_recipes_own_settings(name):
    """--ema-source changes a recipe, so the command has to keep what 2018 had changed already."""
    words, settings = _commands(name)[0]
    assert "--ema-source" in words
    continued = continued_recipe(load_recipe(name, settings), None, overridden_keys(settings))
    assert continued == load_recipe(name)
    assert continued.ema.halflife == 1500 * TRAINING[name][0] / 512


def _commands(name: str) -> list[tuple[list[str], list[str]]]:
    """The commands in a recipe's header as words, each with the values of its --set."""
    lines = re.findall(r"^ +(topgb train .*)$", _header(name).replace("\\\n", ""), re.MULTILINE)
    commands = [shlex.split(line) for line in lines]
    return [(words, [value for word, value in pairwise(words) if word == "--set"]) for words in commands]

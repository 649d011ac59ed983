"""Merged 2018 checkpoints that cannot be imported, and weights and settings that do not fit one: one sentence each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from from2018.checkpoints import (
    FRAMES,
    VIDEOS,
    flags_file,
    quantised,
    random_tagger,
    variables,
    write_checkpoint,
    write_merged,
)
from topgb.cli.arguments import parse_weights
from topgb.errors import InputError
from topgb.from2018.importing import import_checkpoint

LSTM = {"lstm_cells": 16}
HALVES = [0.5, 0.5]


def _values(model: str = "LstmModel", classes: int = 25, spec=FRAMES) -> dict[str, np.ndarray]:
    return variables(random_tagger(model, {**LSTM, "dbof_cluster_size": 16, "dbof_hidden_size": 16}, spec, classes))


def _refusal(prefix: Path, weights: list[float] | None = None, **options: Any) -> str:
    out = prefix.parent / "out"
    with pytest.raises(InputError) as raised:
        import_checkpoint(prefix, out, weights=weights, **options)
    message = str(raised.value)
    assert "\n" not in message
    assert message.count(str(prefix)) <= 1
    assert not out.exists()
    return message


@pytest.fixture
def merged(tmp_path) -> Path:
    return write_merged(tmp_path / "m", [_values(), _values("DbofModel")], flags_file("DbofModel"))


def test_weights_are_wanted(merged):
    message = _refusal(merged)
    assert message.startswith(f"{merged} merges 2 models, and their weights are not in it; give 2 that sum to 1")
    assert message.endswith("weights=('W0', 'W1')")


def test_a_weight_of_one_model_is_wanted(tmp_path):
    prefix = write_merged(tmp_path / "m", [_values()], flags_file("LstmModel"))
    assert "merges 1 model," in _refusal(prefix)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([], "merges 2 models, but weights has 0"),
        ([1.0], "merges 2 models, but weights has 1; give one for each"),
        ([0.4, 0.4, 0.2], "merges 2 models, but weights has 3"),
        ([1.5, -0.5], "the weight -0.5 is not a number from 0 to 1; give each member its share in weights"),
        ([float("nan"), 0.5], "the weight nan is not"),
        ([float("inf"), 0.5], "the weight inf is not"),
        ([0.5, 0.4], "the weights sum to 0.9, not 1"),
        ([0.5, 0.5002], "not 1"),
        ([1.0, 1.0], "the weights sum to 2"),
    ],
)
def test_weights_that_do_not_fit(weights, words, merged):
    assert words in _refusal(merged, weights)


def test_weights_sum_to_1_within_1e_4(merged):
    import_checkpoint(merged, merged.parent / "out", weights=[0.5, 0.50009])


@pytest.mark.parametrize("text", ["", "a,b", "0.5;0.5", "0.5,", "0.4 0.6"])
def test_weights_that_are_no_numbers(text):
    with pytest.raises(InputError, match="is not a list of numbers such as"):
        parse_weights(text)


def test_weights_of_one_model(tmp_path):
    prefix = write_checkpoint(tmp_path / "m", _values(), flags_file("LstmModel"))
    assert "is one model, not several merged ones; leave out weights" in _refusal(prefix, [1.0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_2.model": "LstmModel"}, "'model_2.model' is of a member that the checkpoint has not: its members are"),
        ({"model_1.feature_sizes": "3,4"}, "'model_1.feature_sizes' cannot be one member's"),
        ({"model_1.frame_features": True}, "set 'frame_features'"),
        ({"model_1.gatign": True}, "model_1 as DbofModel: there is no 2018 flag 'gatign'"),
        ({"model_1.model": "Dbof"}, "model_1 as Dbof: there is no 2018 model of this name here"),
        ({"model_0.model": "MoeModel"}, "model_0 as MoeModel: this class takes one vector per video, but"),
        ({"model_1.model": 3}, "the variables of model_1 show no class that topgb knows, nor does set name one"),
        ({"model_1.model": [3]}, "give its 2018 class: set={'model_1.model': 'NetVLADModelLF'}"),
        ({"model": "LstmModel"}, "model_1 as LstmModel: the variable 'rnn/multi_rnn_cell/cell_0/"),
        ({"model.pooling": "average"}, "model_0 as LstmModel: unknown key 'model.pooling'"),
        ({"model_1.model.poling": "average"}, "model_1 as DbofModel: unknown key 'model.poling'"),
        ({"model_1.": 1}, "there is no 2018 flag 'model_1.'"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(settings, words, merged):
    assert words in _refusal(merged, HALVES, settings=settings)


def test_a_member_of_what_is_not_merged(tmp_path):
    prefix = write_checkpoint(tmp_path / "m", _values(), flags_file("LstmModel"))
    assert "it is one model" in _refusal(prefix, settings={"model_0.lstm_cells": 16})


def test_a_missing_member(tmp_path):
    others = {"model_3/tower/a": np.ones(2, np.float32)}
    prefix = write_merged(tmp_path / "m", [_values(), _values()], others=others)
    assert "holds model_3 but no model_2" in _refusal(prefix, HALVES)


@pytest.mark.parametrize("number", ["999999999", "9" * 100])
def test_a_member_of_a_great_number(number, tmp_path):
    prefix = write_merged(tmp_path / "m", [_values()], others={f"model_{number}/tower/a": np.ones(2, np.float32)})
    if len(number) > 9:
        imported = import_checkpoint(prefix, tmp_path / "out", weights=[1.0], settings={"feature_sizes": "12,5"})
        assert imported.unknown == [f"model_{number}/tower/a"]
    else:
        assert "but no model_1" in _refusal(prefix, HALVES)


def test_too_many_members(tmp_path):
    names = {f"model_{number}/tower/a": np.ones(1, np.float32) for number in range(1001)}
    prefix = write_merged(tmp_path / "m", [], others=names)
    assert "merges 1001 models; a model file has at most 1000" in _refusal(prefix, HALVES)


def test_a_model_beside_the_merged_ones(tmp_path):
    prefix = write_merged(tmp_path / "m", [_values()], others={"tower/a": np.ones(2, np.float32)})
    assert "one more beside them" in _refusal(prefix, [1.0])


def test_merged_models_merged_again(tmp_path):
    names = {f"model_{a}/model_{b}/tower/a": np.ones(2, np.float32) for a in (0, 1) for b in (0, 1)}
    prefix = write_merged(tmp_path / "m", [], others=names)
    assert "merges models that are merged themselves" in _refusal(prefix, HALVES)


def test_members_of_other_classes(tmp_path):
    prefix = write_merged(tmp_path / "m", [_values(), _values(classes=26)], flags_file("LstmModel"))
    assert "model_0 has 25 classes and model_1 has 26" in _refusal(prefix, HALVES)


def test_members_of_frames_and_of_videos(tmp_path):
    values = [_values("FrameLevelLogisticModel"), _values("MoeModel", spec=VIDEOS)]
    prefix = write_merged(tmp_path / "m", values)
    settings = {"feature_sizes": "12,5", "model_0.model": "FrameLevelLogisticModel"}
    assert "model_0 takes frame features and model_1 video features" in _refusal(prefix, HALVES, settings=settings)


def test_members_of_other_feature_sizes(tmp_path):
    prefix = write_merged(tmp_path / "m", [_values(), _values("DbofModel")], flags_file("DbofModel"))
    assert "model_0 as LstmModel" in _refusal(prefix, HALVES, settings={"feature_sizes": "12,6"})


def test_a_class_that_variables_do_not_tell(tmp_path):
    values = [_values("FrameLevelLogisticModel")] * 2
    prefix = write_merged(tmp_path / "m", values)
    message = _refusal(prefix, HALVES, settings={"feature_sizes": "12,5"})
    assert "the variables under model_0/tower/ could be of LogisticModel or FrameLevelLogisticModel" in message
    assert message.endswith("say set={'model_0.model': '…'}")
    settings = {"feature_sizes": "12,5", "model_0.model": "FrameLevelLogisticModel"}
    import_checkpoint(prefix, tmp_path / "one", weights=HALVES, settings=settings)
    import_checkpoint(
        prefix, tmp_path / "all", weights=HALVES, settings={"feature_sizes": "12,5", "frame_features": True}
    )


def test_variables_of_a_class_that_topgb_does_not_know(tmp_path):
    prefix = write_merged(tmp_path / "m", [_values(), {"conv1/weights": np.ones((3, 3), np.float32)}])
    assert "the variables of model_1 show no class that topgb knows" in _refusal(prefix, HALVES)


def test_no_member_has_moving_averages(merged):
    assert "holds no moving averages; leave out use_ema" in _refusal(merged, HALVES, use_ema=True)


def test_some_moving_averages_of_a_member(tmp_path):
    shadows = _values()
    missing = "rnn/multi_rnn_cell/cell_1/basic_lstm_cell/kernel"
    del shadows[missing]
    prefix = write_merged(tmp_path / "m", [_values(), _values()], flags_file("LstmModel"), [shadows])
    message = _refusal(prefix, HALVES, use_ema=True)
    assert f"model_0 as LstmModel: the variable '{missing}' is missing among the moving averages" in message


def test_a_spoilt_codebook_of_a_member(tmp_path):
    stored = quantised(_values("DbofModel"))
    stored["hidden1_weights_space"][0] = np.nan
    prefix = write_merged(tmp_path / "m", [_values(), stored], flags_file("DbofModel"))
    message = _refusal(prefix, HALVES)
    assert "the codebook 'model_1/tower/hidden1_weights_space' has values that are not finite" in message

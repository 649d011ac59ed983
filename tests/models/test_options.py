"""Options of models: each wrong one is an error that names its key."""

import pytest
from pydantic import model_validator

from topgb.errors import InputError
from topgb.features import Feature, FeatureSpec
from topgb.models import build_tagger, parse_model
from topgb.models.options import Options, validate

SPEC = FeatureSpec("frame", (Feature("rgb", 3), Feature("audio", 2)))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"aggregator": "netvlad", "clutsers": 3, "head": "moe"}, "unknown key 'model.clutsers'"),
        ({"aggregator": "nextwlad", "head": "moe"}, "no aggregator 'nextwlad'; did you mean 'nextvlad'"),
        (
            {"aggregator": "average", "head": "moe", "max_frame": 3},
            "did you mean 'max_frames'. model knows: aggregator",
        ),
        ({"aggregator": "average", "head": "mo"}, "no head 'mo'"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": 0}}, "'model.head.mixtures' is 0"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": "two"}}, "'model.head.mixtures' is 'two'"),
        ({"aggregator": "average"}, "'model.head' is missing"),
        ({"aggregator": "average", "head": {}}, "'model.head' names no head"),
        (
            {"aggregator": "netvlad", "clusters": True, "head": "moe"},
            "'model.clusters' is True: input should be a mapping or a valid integer$",
        ),
        ({"aggregator": "netvlad", "clusters": {"rgb": "x"}, "head": "moe"}, "'model.clusters.rgb' is 'x': [^.]*$"),
        ({"aggregator": "netvlad", "clusters": {"rgb": 2**31}, "head": "moe"}, "'model.clusters' .* numbers go up to"),
        ({"aggregator": "average", "head": {"name": "moe", "mixtures": 10**30}}, "'model.head.mixtures' .* go up to"),
        ({"aggregator": "average", "head": {"name": "moe", "l2": float("inf")}}, "'model.head.l2' is inf: .*finite"),
        ({"aggregator": "average", "head": "moe", "max_frames": 10**30}, "'model.max_frames' is 1"),
        ({"aggregator": "average", "head": "moe", "features": []}, "'model.features' is "),
    ],
)
def test_wrong_model_section_names_the_key(section, words):
    with pytest.raises(InputError, match="(?i)" + words.replace("'", "'")):
        parse_model(section)


class Inner(Options):
    size: int


class Outer(Options):
    parts: list[Inner]

    @model_validator(mode="before")
    @classmethod
    def _not_empty(cls, value):
        if value is None:
            raise ValueError("An outer is a mapping")
        return value


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "an outer is a mapping"),
        ({"parts": [3]}, "'parts.0' is 3: input should be a mapping"),
        ({"parts": [{"size": 1, "x": 2}]}, "unknown key 'parts.0.x'; parts.0 knows: size"),
        ({"parts": [{}]}, "'parts.0.size' is missing; state it in the recipe or with set={'parts.0.size': '…'}"),
        ({"parts": ["x" * 10**6]}, f"'parts.0' is '{'x' * 12}...{'x' * 13}': input should be a mapping"),
    ],
)
def test_a_wrong_value_is_one_short_sentence_without_python_in_it(value, sentence):
    with pytest.raises(InputError) as raised:
        validate(Outer, value, "")
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    "options",
    [{"clusters": {"rgb": 4}}, {"clusters": {"rgb": 4, "audio": 2, "depth": 1}}, {"clusters": {"rgb": 4, "audio": 0}}],
)
def test_netvlad_wants_a_number_for_every_feature(options):
    with pytest.raises(InputError, match=r"model\.clusters"):
        build_tagger(SPEC, 3, parse_model({"aggregator": "netvlad", "head": "moe", **options}))


def test_diagonal_removal_needs_a_diagonal_as_long_as_the_classes():
    head = {"name": "moe", "gating": "input", "gating_remove_diagonal": True}
    build_tagger(SPEC, 5, parse_model({"aggregator": "average", "head": head}))
    for wrong, classes in ((head, 6), ({**head, "gating": "none"}, 5)):
        with pytest.raises(InputError, match="gating_remove_diagonal"):
            build_tagger(SPEC, classes, parse_model({"aggregator": "average", "head": wrong}))

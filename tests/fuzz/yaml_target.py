"""The reader of YAML on any bytes, and what is made of its values: a description of records, a recipe."""

from pathlib import Path

from fuzz.choices import Choices
from fuzz.refusals import unless_malformed, unless_refused
from topgb.records.description import read_description
from topgb.training.recipe import load_recipe, shipped_recipes
from topgb.yaml_reading import parse_yaml

_DESCRIPTION = """\
level: frame
features:
  - {name: rgb, size: 6, dtype: uint8, range: [-2.0, 2.0]}
  - {name: audio, size: 3, dtype: float32}
classes: 5
vocabulary: vocabulary.csv
"""
_SIGNS = """\
a: &a {x: 1, y: [2e-4, .inf, ~, yes, 0x1f, 1:30, 2026-01-01], z: 'it''s'}
b: &b {<<: *a, x: "\\x41"}
c: [*a, *b, !!str 1, !!binary aGk=, !!set {k}, !!omap [o: 1]]
? |
  key
: >-
  folded
  text
"""


class Target:
    """`run` reads a YAML file of the given bytes, which lies in `folder`, as a description or as a recipe."""

    tokens = (
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!int ",
        b"!!float ",
        b"!!timestamp ",
        b"!!binary ",
        b"? ",
        b"- ",
        b"{",
        b"[",
        b"\n  ",
    )

    def __init__(self, folder: Path):
        self._path = folder / "fuzzed.yaml"

    def run(self, data: bytes) -> None:
        choices = Choices(data)
        as_recipe, text = choices.number() % 2, choices.rest()
        unless_malformed(lambda: parse_yaml(text))
        self._path.write_bytes(text)
        if as_recipe:
            unless_refused(lambda: load_recipe(str(self._path)), "")
        else:
            unless_refused(lambda: read_description(self._path), self._path)

    def seeds(self) -> list[bytes]:
        """Sound descriptions and recipes, and what else YAML can say."""
        recipes = Path(load_recipe.__code__.co_filename).parents[1] / "recipes"
        texts = [(recipes / f"{name}.yaml").read_bytes() for name in shipped_recipes()[:4]]
        return [b"\0" + _DESCRIPTION.encode(), b"\0" + _SIGNS.encode(), *(b"\1" + text for text in texts)]

"""The one reader of YAML (recipes, descriptions of records, settings), within bounds that no honest file reaches."""

import os
import re
from typing import Any

import yaml

from topgb.errors import printable
from topgb.files import open_input

MOST_BYTES = 1 << 18
MOST_VALUES = 10_000
DEEPEST = 50
_LONGEST_NUMBER = 64
# Numbers of base 60 (1:30 is 90) and of base 8 (010 is 8).
_SURPRISING = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9_]+)+)")
_MERGE = "tag:yaml.org,2002:merge"
_INTEGER, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"


def read_yaml(path: str | os.PathLike) -> Any:
    """The value in a YAML file in UTF-8. Raises `OSError` if it cannot be read, and as `parse_yaml`."""
    with open_input(path) as file:
        return parse_yaml(file.read(MOST_BYTES + 1))


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML text; bytes are UTF-8.

    2e-4 is a number, as authors mean it. Raises `ValueError`, in a few printable words, if the text is not YAML, gives
    a key twice, or is longer, deeper or of more values than recipes are; values behind aliases count each time.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES:,} bytes")
    try:
        return yaml.load(text.decode() if isinstance(text, bytes) else text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(printable(" ".join(str(error).split())[:200])) from None
    # PyYAML lets these through, for an empty !!int, an unknown !!bool, a !!timestamp that is none.
    except (TypeError, LookupError, AttributeError, ArithmeticError):
        raise ValueError("a value does not suit its tag") from None


class _Loader(yaml.SafeLoader):
    """Counts values while the document is composed, before any is made."""

    def __init__(self, text: str):
        super().__init__(text)
        self._values = self._level = 0
        # The number of values in each finished node, itself included.
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            # A node that is not finished would hold itself.
            if id(node) not in self._sizes:
                raise yaml.YAMLError("a value holds itself")
            self._count(self._sizes[id(node)])
            return node
        before = self._values
        self._count(1)
        self._level += 1
        if self._level > DEEPEST:
            raise yaml.YAMLError(f"nested more than {DEEPEST} levels deep")
        node = super().compose_node(parent, index)
        self._level -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES:,} values, those behind aliases included")

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        # Long ones take quadratic time, or cannot be printed afterwards.
        if len(node.value) > _LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number has {len(node.value):,} characters")
        if node.tag == _INTEGER and _SURPRISING.fullmatch(node.value):
            raise yaml.YAMLError(
                f"{node.value} is not the number in YAML that it seems; write it without : or a 0 in front"
            )
        return self.construct_yaml_int(node) if node.tag == _INTEGER else self.construct_yaml_float(node)

    def construct_unique(self, node: yaml.MappingNode) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            # Only text: other keys can be chosen so that all have one hash.
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError("a key is not text")
            if key.tag != _MERGE and (key.tag, key.value) in seen:
                raise yaml.YAMLError(f"the key {key.value!r} stands there twice")
            seen.add((key.tag, key.value))
        return self.construct_mapping(node, deep=True)


_Loader.add_implicit_resolver(_FLOAT, re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789"))
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_unique)
_Loader.add_constructor(_INTEGER, _Loader.construct_number)
_Loader.add_constructor(_FLOAT, _Loader.construct_number)

"""Count what is seen of each feature over many records: kinds of values, widths, whether they are text."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from topgb.errors import InputError
from topgb.records.disguised import MOST_BYTES, disguise_of
from topgb.records.framing import Place
from topgb.records.labels import is_label_key
from topgb.records.text_values import is_text

Kind = Literal["uint8", "float32", "int64", "mixed", "empty"]
_KINDS: dict[str, Kind] = {"bytes_list": "uint8", "float_list": "float32", "int64_list": "int64"}
_MOST_NAMES = 10_000
_MOST_SAMPLES = 64
# The fewest records that show that a feature is always the same.
_LEAST_RECORDS = 10


@dataclass
class FeatureSummary:
    """One feature over all records: its kind, its least and greatest width, and the number of records with it.

    `text` says whether all its values are text, `lists` whether a value is a list of several byte strings, `disguise`
    what its bytes are if they are not a number each, `constant` whether all values in many records are the same.
    """

    name: str
    kind: Kind
    min_width: int
    max_width: int
    records: int
    text: bool = False
    lists: bool = False
    disguise: str | None = None
    constant: bool = False

    @property
    def may_be_input(self) -> bool:
        """Whether a model could take the feature, by its name and its kind of values."""
        sound = self.name.isprintable() and "." not in self.name and not self.text and not self.lists
        return sound and not is_label_key(self.name) and self.disguise is None and self.kind in ("uint8", "float32")


@dataclass
class FeatureTally:
    """Kinds and widths of one feature's values. An empty value adds no kind, and a list without frames no width."""

    kinds: set[Kind] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)
    records: int = 0
    text: bool = True
    lists: bool = False
    sample: list[bytes] = field(default_factory=list)
    first: Any = None
    constant: bool = True

    def add(self, value: Any) -> None:
        stored = value.WhichOneof("kind")
        content: Any = getattr(value, stored).value if stored else []
        if stored:
            self.kinds.add(_KINDS[stored])
        if stored == "bytes_list":
            self.lists |= len(content) > 1
            self.text = self.text and all(map(is_text, content))
            if sum(map(len, self.sample)) < MOST_BYTES and len(self.sample) < _MOST_SAMPLES:
                self.sample += content[:1]
        self.first = value if self.first is None else self.first
        self.constant = self.constant and value == self.first
        self.widths.add(len(content[0]) if stored == "bytes_list" and len(content) == 1 else len(content))

    def summary(self, name: str) -> FeatureSummary:
        kind: Kind = "empty" if not self.kinds else "mixed" if len(self.kinds) > 1 else next(iter(self.kinds))
        widths = min(self.widths, default=0), max(self.widths, default=0)
        # The width of a list of values is their number.
        alike = kind == "uint8" and len(self.widths) == 1 and not self.lists
        disguise = disguise_of(self.sample) if alike else None
        text, constant = self.text and kind == "uint8", self.constant and self.records >= _LEAST_RECORDS
        return FeatureSummary(name, kind, *widths, self.records, text, self.lists, disguise, constant)

    @property
    def shared_width(self) -> int:
        """The greatest width of which all widths are multiples."""
        return math.gcd(*self.widths)


def tally(survey: dict[str, FeatureTally], name: str, values: Any, place: Place) -> None:
    """Count the `values` of the feature `name` in the record at `place`. Raises `InputError` for endless names."""
    seen = survey.get(name)
    if seen is None:
        check_bound(len(survey), _MOST_NAMES, "features", place)
        seen = survey[name] = FeatureTally()
    seen.records += 1
    for value in values:
        seen.add(value)


def check_bound(count: int, most: int, what: str, place: Place) -> None:
    """Raise `InputError` for more than `most` of `what`: a small file can unpack to millions of them."""
    if count >= most:
        raise InputError(f"{place}: more than {most:,} {what}, which no records of videos have; name other files")

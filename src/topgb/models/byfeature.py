"""What an aggregator holds for each feature apart."""

from typing import Any

from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec


class ByFeature(nn.ModuleDict):
    """Modules by feature name, which may be that of an attribute too (`keys`, `type`, `training`)."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        # The public ways refuse such names. PyTorch's name for its children is written here and nowhere else.
        self._modules[key] = module

    def __setattr__(self, name: str, value: Any) -> None:
        # A module's own __setattr__ takes `self.training = …` for the feature of that name.
        object.__setattr__(self, name, value)


def set_child(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Put `child` in the place of the submodule `name` of `parent`, whatever kind of module that is."""
    if isinstance(parent, nn.ModuleDict):
        parent[name] = child
    else:
        setattr(parent, name, child)


def number_by_feature(
    option: str, value: dict[str, int] | int, spec: FeatureSpec, multiple_of: int = 1
) -> dict[str, int]:
    """The number of each feature of `spec`, in its order, that `model.OPTION` states: by name, or one for all.

    Raises `InputError` where a feature has no number, a number has no feature, or one is not a positive multiple of
    `multiple_of`.
    """
    names = [feature.name for feature in spec.features]
    if isinstance(value, int):
        value = dict.fromkeys(names, value)
    if set(value) != set(names):
        # Those of a file's header may be names that a terminal would obey.
        stated = ", ".join(name if name.isprintable() else ascii(name) for name in value)
        raise InputError(
            f"'model.{option}' names {stated}; the model's features are {', '.join(names)}; "
            "name these, or give one number for all"
        )
    if any(number < 1 or number % multiple_of for number in value.values()):
        needed = "at least 1" if multiple_of == 1 else f"a positive multiple of {multiple_of}"
        raise InputError(f"'model.{option}' is {value}; every feature needs {needed}")
    return {name: value[name] for name in names}

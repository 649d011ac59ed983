"""Modules and numbers that an aggregator keeps per feature."""

from typing import Any

from torch import nn

from topgb.errors import InputError
from topgb.features import FeatureSpec


class ByFeature(nn.ModuleDict):
    """Modules by feature name; the name may equal that of an attribute (`keys`, `type`, `training`)."""

    def __setitem__(self, key: str, module: nn.Module) -> None:
        # PyTorch's public methods refuse such names. No other place uses the private name `_modules`.
        self._modules[key] = module

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module.__setattr__ would take `self.training = …` for the feature named `training`.
        object.__setattr__(self, name, value)


def set_child(parent: nn.Module, name: str, child: nn.Module) -> None:
    """Replace the submodule `name` of `parent`, a module of any kind, with `child`."""
    if isinstance(parent, nn.ModuleDict):
        parent[name] = child
    else:
        setattr(parent, name, child)


def number_by_feature(
    option: str, value: dict[str, int] | int, spec: FeatureSpec, multiple_of: int = 1
) -> dict[str, int]:
    """The number that the option `model.OPTION` gives each feature of `spec`, by name and in the order of `spec`.

    `value` holds numbers by feature name, or one number for all features. Raises `InputError` where a feature has no
    number, a number has no feature, or a number is not a positive multiple of `multiple_of`.
    """
    names = [feature.name for feature in spec.features]
    if isinstance(value, int):
        value = dict.fromkeys(names, value)
    if set(value) != set(names):
        # Names from a file's header may hold escape sequences that a terminal would obey.
        stated = ", ".join(name if name.isprintable() else ascii(name) for name in value)
        raise InputError(
            f"'model.{option}' names {stated}; the model's features are {', '.join(names)}; "
            "name these, or give one number for all"
        )
    if any(number < 1 or number % multiple_of for number in value.values()):
        needed = "at least 1" if multiple_of == 1 else f"a positive multiple of {multiple_of}"
        raise InputError(f"'model.{option}' is {value}; every feature needs {needed}")
    return {name: value[name] for name in names}

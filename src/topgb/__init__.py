"""topgb: train multi-label video taggers on frame features and fit them into one file within a size budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topgb.errors import InputError, TopgbError
from topgb.moved import install
from topgb.version import __version__

if TYPE_CHECKING:
    from topgb.api.model import Model, load
    from topgb.modelfile.loaded import LoadedModel

__all__ = ["InputError", "LoadedModel", "Model", "TopgbError", "__version__", "load"]
# PyTorch takes a second to import; `import topgb` and the command line's help do not wait for it.
_LAZY = {"LoadedModel": "topgb.modelfile.loaded", "Model": "topgb.api.model", "load": "topgb.api.model"}
install()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'topgb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

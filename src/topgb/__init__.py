"""topgb: train multi-label video taggers on frame features and fit them into one file within a size budget."""

from typing import TYPE_CHECKING, Any

from topgb.moved import install
from topgb.version import __version__

if TYPE_CHECKING:
    from topgb.modelfile.loaded import LoadedModel, load

__all__ = ["LoadedModel", "__version__", "load"]
install()


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import; the command line's help must not wait for it.
    if name in ("load", "LoadedModel"):
        from topgb.modelfile import loaded

        return getattr(loaded, name)
    raise AttributeError(f"module 'topgb' has no attribute {name!r}")

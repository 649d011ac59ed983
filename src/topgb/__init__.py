"""topgb: train multi-label video taggers on frame features and fit them into one file within a size budget."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from topgb.modelfile import LoadedModel, load

__all__ = ["LoadedModel", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # PyTorch takes a second to import; the command line's help must not wait for it.
    if name in ("load", "LoadedModel"):
        from topgb import modelfile

        return getattr(modelfile, name)
    raise AttributeError(f"module 'topgb' has no attribute {name!r}")

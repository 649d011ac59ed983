"""topgb: train multi-label video taggers on frame features and fit them into one file within a size budget.

Each command is one call, with the command's options as keywords:

records   extract, inspect, verify, pack, synth, download, drop_fakes
train     train, build, distill
use       load, Model, tag, evaluate, compare, thresholds, predict, report, serve
models    quantize, shrink, average, ensemble, remember, rerank, export, import_tf, card

Errors are `InputError` (wrong input) and `TopgbError` (the work failed). Results have `to_dict()`, and `to_pandas()`
where they are tables. Long work shows a bar, unless `progress=False`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from topgb.errors import InputError, TopgbError
from topgb.moved import install

if TYPE_CHECKING:
    from topgb.api.cards import card
    from topgb.api.combining import average, ensemble, remember, rerank
    from topgb.api.conversion import export, import_tf
    from topgb.api.deciding import thresholds
    from topgb.api.extracting import extract
    from topgb.api.figures import compare, evaluate
    from topgb.api.model import Model, load
    from topgb.api.packing import pack
    from topgb.api.predictions import distill, predict
    from topgb.api.records import inspect, synth, verify
    from topgb.api.reporting import report
    from topgb.api.serving import serve
    from topgb.api.smaller import quantize, shrink
    from topgb.api.tagging import tag
    from topgb.api.training import build, train
    from topgb.api.youtube8m import download, drop_fakes
    from topgb.modelfile.loaded import LoadedModel
    from topgb.version import __version__

# PyTorch takes a second to import; `import topgb` and the command line's help do not wait for it.
_LAZY = {
    "__version__": "topgb.version",
    "LoadedModel": "topgb.modelfile.loaded",
    "Model": "topgb.api.model",
    "average": "topgb.api.combining",
    "build": "topgb.api.training",
    "card": "topgb.api.cards",
    "compare": "topgb.api.figures",
    "distill": "topgb.api.predictions",
    "download": "topgb.api.youtube8m",
    "drop_fakes": "topgb.api.youtube8m",
    "ensemble": "topgb.api.combining",
    "evaluate": "topgb.api.figures",
    "export": "topgb.api.conversion",
    "extract": "topgb.api.extracting",
    "import_tf": "topgb.api.conversion",
    "inspect": "topgb.api.records",
    "load": "topgb.api.model",
    "pack": "topgb.api.packing",
    "predict": "topgb.api.predictions",
    "quantize": "topgb.api.smaller",
    "remember": "topgb.api.combining",
    "report": "topgb.api.reporting",
    "rerank": "topgb.api.combining",
    "serve": "topgb.api.serving",
    "shrink": "topgb.api.smaller",
    "synth": "topgb.api.records",
    "tag": "topgb.api.tagging",
    "thresholds": "topgb.api.deciding",
    "train": "topgb.api.training",
    "verify": "topgb.api.records",
}
__all__ = [
    "InputError",
    "LoadedModel",
    "Model",
    "TopgbError",
    "__version__",
    "average",
    "build",
    "card",
    "compare",
    "distill",
    "download",
    "drop_fakes",
    "ensemble",
    "evaluate",
    "export",
    "extract",
    "import_tf",
    "inspect",
    "load",
    "pack",
    "predict",
    "quantize",
    "remember",
    "report",
    "rerank",
    "serve",
    "shrink",
    "synth",
    "tag",
    "thresholds",
    "train",
    "verify",
]
install()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'topgb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

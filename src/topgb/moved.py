"""Earlier names of modules: the imports that docs/api.md once showed go on working."""

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, cast

# Each old module, and the modules that hold its contents now. `module:old=new` is one attribute that was renamed.
MOVED: dict[str, tuple[str, ...]] = {
    "topgb.compress": (),
    "topgb.compress.average": ("topgb.combining.average",),
    "topgb.compress.ensemble": ("topgb.combining.ensemble",),
    "topgb.compress.parents": ("topgb.combining.parents", "topgb.evaluation.opening:open_for_parents=open_for"),
    "topgb.compress.quantize": ("topgb.quantizing.quantize", "topgb.quantizing.quantize:Settings=QuantizeOptions"),
    "topgb.compress.remember": ("topgb.combining.remember",),
    "topgb.compress.rerank": ("topgb.combining.rerank",),
    "topgb.compress.shrink": ("topgb.combining.shrink",),
    "topgb.compress.weights": ("topgb.combining.weights",),
    "topgb.evaluation.submission": ("topgb.youtube8m.submission",),
    "topgb.matmul": ("topgb.matmul_library", "topgb.files:cache_folder=cache_folder"),
    "topgb.modelfile.from_2018": ("topgb.from2018.flags",),
    "topgb.modelfile.import_2018": ("topgb.from2018.importing",),
    "topgb.modelfile.inputs": ("topgb.modelfile.given_arrays",),
    "topgb.modelfile.packed": ("topgb.modelfile.packed_linear",),
    "topgb.modelfile.tf1_checkpoint": ("topgb.from2018.checkpoint",),
    "topgb.modelfile.variables_2018": ("topgb.from2018.variables",),
    "topgb.records.described": ("topgb.records.description:describe=find_description",),
    "topgb.records.download": ("topgb.youtube8m.download",),
    "topgb.records.fakes": ("topgb.youtube8m.fakes",),
    "topgb.records.pack": ("topgb.packing.pack",),
}


class _Moved(ModuleType):
    """An old module, whose attributes are looked up in the new ones."""

    def __getattr__(self, name: str) -> Any:
        for place in MOVED[self.__name__]:
            module, _, renamed = place.partition(":")
            old, _, new = renamed.partition("=")
            found = importlib.import_module(module)
            if name == old:
                return getattr(found, new)
            if not renamed and hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder:
    """Finds the modules of `MOVED`. It comes after all other finders, so it is asked only for names without a file.

    The base classes of such finders lie in importlib.abc, which would take half of the time of `import topgb`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        return ModuleSpec(fullname, cast(Any, self), is_package=fullname == "topgb.compress")

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Moved(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def install() -> None:
    """Let Python import the old names."""
    sys.meta_path.append(_Finder())

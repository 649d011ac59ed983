"""The one way to open a model, given as a model file, as its URL or as the folder of a run.

Modules that only runs need are imported when a run is opened, because most models are files.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from topgb.devices import Precision, PrecisionChoice, Resident, choose_device, keep_freed_memory, resolved_precision
from topgb.errors import InputError, option
from topgb.jobs.engine import LOCAL, Engine, EngineKind, open_engine
from topgb.modelfile import LoadedModel, StoredModel, load, stored_model
from topgb.modelfile.loaded import default_resident


@dataclass(frozen=True)
class OpenedModel:
    """An open model, and the engine that works with it.

    here     the model in this process, which reads its header
    model    the model for the engine's workers: the same, or a stand-in that each worker opens itself
    device   the device on which the workers compute
    engine   runs the work on the shards of the records
    """

    here: LoadedModel
    model: LoadedModel
    device: torch.device
    engine: Engine = LOCAL


def open_stored(path: Path, use_ema: bool | None = None) -> StoredModel:
    """The model of a model file, its URL or a run, as stored, for work on files.

    A finished run gives its model file. A run without a model file, or any run if `use_ema` chooses the weights, gives
    its best checkpoint (the latest, if the run did not validate), as `topgb build` does. Raises `InputError` where
    `path` is neither a model file nor a run, or `use_ema` is given for a model file.
    """
    file = _model_file(path, use_ema)
    if file is not None:
        return stored_model(file)
    from topgb.training.build import stored_run

    return stored_run(path, use_ema)


def open_model(
    path: Path,
    device: torch.device,
    use_ema: bool | None = None,
    resident: Resident | None = None,
    precision: Precision = "float32",
) -> LoadedModel:
    """The model of `open_stored`, ready to predict on `device`; the last two are as for `topgb.modelfile.load`."""
    file = _model_file(path, use_ema)
    if file is not None:
        return load(file, device, resident, precision)
    from topgb.training.build import load_run

    if resident is None:
        resident = default_resident(device) if precision == "bfloat16" else "full"
    return load_run(path, use_ema, resident, precision).to(device)


def open_for_engine(
    path: Path,
    use_ema: bool | None,
    device: str,
    resident: Resident | None,
    kind: EngineKind = "local",
    address: str | None = None,
    precision: PrecisionChoice = "float32",
) -> OpenedModel:
    """The model of `open_model`, to work on `device` in this process, or in the workers of a Ray cluster at `address`.

    Workers compute in the precision that is chosen here; `auto` is float32 for their GPUs.

    Raises `InputError` as `open_model`, `choose_device` and `open_engine` do, and where `device` names a device of this
    machine although other machines do the work.
    """
    keep_freed_memory()
    if kind == "local":
        engine, chosen = open_engine(kind, address), choose_device(device)
        model = open_model(path, chosen, use_ema, resident, resolved_precision(precision, chosen))
        return OpenedModel(model, model, chosen, engine)
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(
            f"{option('device', device)} names a device of this machine; with {option('engine', 'ray')} choose cpu "
            "or cuda"
        )
    # Open the model first: a wrong path should not wait for a cluster. Only its header is read, so a CPU is enough.
    cpu = torch.device("cpu")
    here = open_model(path, cpu, use_ema, resident)
    engine = open_engine(kind, address, device)
    chosen = torch.device("cuda" if engine.gpus else "cpu")
    if not engine.gpus:
        found = resolved_precision(precision, cpu)
    else:
        found = "bfloat16" if precision == "bfloat16" else "float32"
    here.precision = found
    from topgb.jobs.remote_opening import opened_there

    opening = partial(_open_in_worker, path, chosen, use_ema, resident, found)
    return OpenedModel(here, opened_there(opening), chosen, engine)


def _model_file(path: Path, use_ema: bool | None) -> Path | None:
    """The model file to open, or None if the model must be built from a checkpoint of the run at `path`.

    A URL gives a copy in the cache, which the first look downloads.
    """
    if (url := _url(path)) is not None:
        if use_ema is not None:
            raise InputError(
                f"{option('use_ema')} chooses among the weights in a run's directory, and {url} is a file; leave it out"
            )
        from topgb.modelfile.fetched import fetched

        return fetched(url)
    if path.is_dir():
        from topgb.training.run_folder import MODEL_FILE

        file = path / MODEL_FILE
        return file if use_ema is None and file.is_file() else None
    if use_ema is not None and path.exists():
        raise InputError(
            f"{option('use_ema')} chooses among the weights in a run's directory, and {path} is a file; leave it out"
        )
    return path


def beside(path: Path) -> Path:
    """The path to put another file beside: a run's model lies in its folder, one at a URL in the working directory."""
    if (url := _url(path)) is not None:
        from topgb.modelfile.fetched import file_name

        return Path(file_name(url))
    if path.is_dir():
        from topgb.training.run_folder import MODEL_FILE

        return path / MODEL_FILE
    return path


def _url(path: Path) -> str | None:
    if ":/" not in str(path):
        return None
    from topgb.modelfile.fetched import url_of

    return url_of(path)


def _open_in_worker(
    path: Path, device: torch.device, use_ema: bool | None, resident: Resident | None, precision: Precision
) -> LoadedModel:
    keep_freed_memory()
    return open_model(path, device, use_ema, resident, precision)

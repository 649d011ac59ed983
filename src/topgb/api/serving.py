"""The call `serve`: models behind HTTP, with a page to try them on."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from topgb.api.arguments import PathLike, Size, check_choices, check_least, to_optional_path, to_paths, unpacking
from topgb.errors import InputError, install_extra, option
from topgb.unpacked_size import unpacking_to

if TYPE_CHECKING:
    from topgb.devices import Resident
    from topgb.serving.served import ServedModel

# The default of `max_unpacked` for uploads: less than for a user's own files.
_UNPACKED = 256 << 20


@unpacking
def serve(
    models: Sequence[PathLike],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    allow_host: Sequence[str] = (),
    examples: PathLike | None = None,
    device: str = "auto",
    resident: "Resident | None" = None,
    window: float = 2.0,
    max_upload: Size = "200M",
    max_seconds: float = 600.0,
    max_unpacked: Size | None = None,
) -> None:
    """Answer HTTP requests with models, and show a page to try them on, until Ctrl-C or a signal (`topgb serve`).

    SIGTERM does it, and SIGHUP unless it is ignored: requests that have begun are finished.

    `models` are model files or runs' folders. Requests name them by the file's stem. `port` 0 takes any free port;
    the address is printed when the server listens. Other hosts than loopback need a `token`, which requests send in
    `Authorization: Bearer …`; `allow_host` are host names that a proxy may use. `examples` is a folder of files that
    the page offers. Requests wait up to `window` milliseconds for others, with which they are computed together.
    Uploads may have `max_upload` bytes and unpack to `max_unpacked`, 256M if it is left out; `max_seconds` of a video
    are looked at. docs/serving.md describes the API.

    Raises `InputError` where a model cannot be opened, where the server cannot listen, and if topgb's extra `serve` is
    not installed.

    >>> topgb.serve(["model.safetensors"], port=0)  # doctest: +SKIP
    """
    try:
        from topgb.serving.server import listen, run, url_of
        from topgb.serving.service import Service
    except ImportError as error:
        raise InputError(f"serving needs {error.name}, which is not installed here; {install_extra('serve')}") from None
    from topgb import terminal
    from topgb.devices import Resident
    from topgb.serving.settings import Settings, check_exposure

    check_least(port=(port, 0), window=(window, 0), max_seconds=(max_seconds, 1))
    if resident is not None:
        check_choices(resident=(resident, Resident))
    check_exposure(host, token)
    folder = to_optional_path(examples)
    if folder is not None and not folder.is_dir():
        raise InputError(f"{folder} is no folder; {option('examples')} takes one with files that the page offers")
    settings = Settings(
        token=token,
        hosts=(host, *allow_host),
        window=window / 1000,
        upload_bytes=_size(max_upload),
        video_seconds=max_seconds,
        examples=folder,
    )
    _check_temporary_folder()
    # Before the models are opened, which may take long.
    listening = listen(host, port)
    try:
        opened = open_served(models, device, resident)
    except BaseException:
        listening.close()
        raise
    terminal.tell(*(f"{model.name}: {model.header.classes:,} classes, {model.bytes:,} bytes" for model in opened))
    with nullcontext() if max_unpacked is not None else unpacking_to(_UNPACKED):
        cut = run(
            Service(opened, settings), listening, lambda server: terminal.say(f"listening at {url_of(listening)}")
        )
    terminal.tell(
        f"stopped; {cut:,} request{'s' if cut > 1 else ''} that had begun got no answer"
        if cut
        else "stopped; all requests that had begun are answered"
    )


def open_served(
    models: Sequence[PathLike], device: str = "auto", resident: "Resident | None" = None
) -> "list[ServedModel]":
    """The models of these files and runs, ready to answer. Raises `InputError` as `topgb.load`, or for equal names."""
    from topgb.devices import choose_device, keep_freed_memory
    from topgb.serving.served import ServedModel, names_for
    from topgb.training.opened import open_model, open_stored

    keep_freed_memory()
    paths, chosen = to_paths(models), choose_device(device)
    if not paths:
        raise InputError("no model is named; a server needs one at least")
    found = []
    for name, path in zip(names_for(paths), paths, strict=True):
        loaded = open_model(path, chosen, None, resident)
        found.append(ServedModel(name, loaded.header, open_stored(path).file_bytes, loaded.predict))
    return found


def _check_temporary_folder() -> None:
    """Raise `InputError` where no folder takes uploads, rather than at the first one."""
    import tempfile

    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        raise InputError(
            f"uploads have no place: a temporary file cannot be written ({error.strerror or error}); set TMPDIR to a "
            "folder that can be written"
        ) from None


def _size(given: Size) -> int:
    from topgb.unpacked_size import parse_size

    try:
        return parse_size(str(given))
    except InputError:
        raise InputError(f"{option('max_upload', str(given)[:40])} is not a size such as 500M or 8G") from None

"""Model files at a URL, downloaded once into a cache. They are read as any stranger's file is."""

import os
import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from topgb.errors import InputError, TopgbError, install_extra, printable
from topgb.files import atomic_path, cache_folder
from topgb.remote_errors import remote_errors
from topgb.version import __version__

# Characters of a copy's name that are kept: with 4 bytes each, and a partial file's ending, it stays a valid name.
MOST_NAME = 50
# One letter is a drive of Windows. A `Path` has one slash where the user wrote two.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+([^/].*)", re.DOTALL)
# Keys of file systems whose values change with the content of a file.
_VERSION = ("size", "ETag", "etag", "mtime", "LastModified", "last_modified", "created", "generation")


def url_of(path: Path) -> str | None:
    """The URL that `path` was made of, or None if it is a path."""
    found = _URL.fullmatch(os.fspath(path))
    # `Path.exists` raises an error where a signed address is longer than a name may be.
    if found is None or os.path.lexists(path):
        return None
    scheme = found[1].lower()
    # The path in a URL of this machine begins with a slash of its own.
    return f"{scheme}://{'/' if scheme == 'file' else ''}{found[2]}"


def file_name(url: str) -> str:
    """The bare name of the file at `url`; it cannot lead to another folder of this machine."""
    name = PurePosixPath(unquote(url.partition("://")[2].partition("?")[0].partition("#")[0])).name
    return name[-MOST_NAME:] if name.isprintable() and name not in ("", "..") else "model.safetensors"


def fetched(url: str) -> Path:
    """The local copy of the model file at `url`: `hf://OWNER/NAME/FILE`, or any address that fsspec reaches.

    Copies from the Hugging Face hub lie in its own cache, all others in topgb's, named by the URL and by the version of
    the file that the file system reports; a version that is there is not downloaded again. Raises `InputError` where
    there is no such file or a package is not installed, `TopgbError` where the network fails.
    """
    return _from_hub(url) if url.startswith("hf://") else _from_file_system(url)


def _from_hub(url: str) -> Path:
    parts = url.removeprefix("hf://").split("/", 2)
    if len(parts) < 3 or not all(parts):
        raise InputError(f"{url} names no file; say hf://OWNER/NAME/FILE, or hf://OWNER/NAME@REVISION/FILE")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import (
            EntryNotFoundError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise InputError(f"{url} needs huggingface_hub, which is not installed here; {install_extra('hub')}") from None
    owner, (name, _, revision), file = parts[0], parts[1].partition("@"), parts[2]
    try:
        copy = hf_hub_download(
            f"{owner}/{name}", file, revision=unquote(revision) or None, library_name="topgb",
            library_version=__version__,
        )  # fmt: skip
    except LocalEntryNotFoundError as error:
        raise TopgbError(
            f"cannot read {url}: the hub does not answer, and no copy is in the cache; check the connection"
        ) from error
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise _absent(url) from error
    except ValueError as error:
        raise InputError(f"{url} is no address of the hub ({printable(str(error))})") from error
    except OSError as error:
        reason = printable(str(error).partition("\n")[0])
        raise TopgbError(f"cannot read {url}: {reason}; check the connection and your rights") from error
    return Path(copy)


def _from_file_system(url: str) -> Path:
    import fsspec
    from fsspec.implementations.local import LocalFileSystem

    with remote_errors(url, _absent):
        system, path = fsspec.url_to_fs(url)
        if isinstance(system, LocalFileSystem):
            return Path(path)
        info = system.info(path)
        if info.get("type") == "directory":
            raise InputError(f"{url} is a folder; name a model file")
        version = repr([(key, str(info[key])) for key in _VERSION if key in info])
        copy = cache_folder() / "models" / sha256(f"{url}\n{version}".encode()).hexdigest()[:32] / file_name(url)
        if not copy.exists():
            with atomic_path(copy) as partial:
                system.get_file(path, os.fspath(partial))
    return copy


def _absent(url: str) -> InputError:
    more = ", or it is private, and your token does not reach it" if url.startswith("hf://") else ""
    return InputError(f"there is no file {url}{more}; check the address")

"""Files at a URL, through fsspec: find them, and fetch one. Imported where records are named by a URL."""

from typing import BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from topgb.records.folders import ENDINGS, no_match_error
from topgb.records.spooling import spool
from topgb.remote_errors import remote_errors


def local_path(url: str) -> str | None:
    """The path of a URL that names local files, or None for any other."""
    with remote_errors(url, no_match_error):
        system, path = fsspec.url_to_fs(url)
    return path if isinstance(system, LocalFileSystem) else None


def matching(url: str) -> list[str]:
    """The URLs of the files that `url` names: one file, a glob, or a folder's files of records.

    Raises `InputError` if there are none, and `TopgbError` if the network fails.
    """
    with remote_errors(url, no_match_error):
        system, path = fsspec.url_to_fs(url)
        # A question mark begins the query of a web address; elsewhere it stands for one character.
        wild = any(sign in path for sign in ("*[" if url.startswith("http") else "*?["))
        if wild:
            entries = system.glob(path, detail=True)
        elif system.isdir(path):
            entries = {}
            for ending in ENDINGS:
                entries |= system.glob(f"{path.rstrip('/')}/*{ending}", detail=True)
        elif system.exists(path):
            return [url]
        else:
            raise no_match_error(url)
    if not (files := [name for name, entry in entries.items() if entry.get("type") != "directory"]):
        raise no_match_error(url)
    return [_fill_glob(url, system.unstrip_protocol(name), name) for name in files]


def fetch(url: str) -> BinaryIO:
    """An unlinked temporary copy of the file at `url`. Raises `InputError` or `TopgbError` as `matching` does."""
    with remote_errors(url, no_match_error), fsspec.open(url, "rb") as source:
        return spool(source, url, compressed=False)[0]


def _fill_glob(url: str, full_name: str, name: str) -> str:
    """`url` with its glob replaced by the file `name`; the other parts of a chained URL (`a://…::b://…`) stay."""
    first, chained, rest = url.partition("::")
    if not chained:
        return full_name
    if "://" in first:
        return f"{first.split('://')[0]}://{name}::{rest}"
    return f"{first}::{rest.split('://')[0]}://{name.lstrip('/')}" if "://" in rest else full_name

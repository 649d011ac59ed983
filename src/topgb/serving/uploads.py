"""Files that clients send in forms: received within bounds, kept while they are used, then deleted."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from topgb.errors import InputError, TopgbError, printable
from topgb.serving.bodies import TagChoice, from_texts
from topgb.serving.problems import ProblemError
from topgb.serving.service import Service
from topgb.serving.sources import suffix_of

FORM = "multipart/form-data"
_LONGEST_NAME = 120
_SUFFIX = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.")


@dataclass(frozen=True)
class Upload:
    """A file that was sent: its path on the server, the client's name for it, and the choices of the request."""

    path: Path
    name: str
    choice: TagChoice

    def renamed(self, error: TopgbError) -> TopgbError:
        """The error with the client's name in place of the server's path."""
        path, folder = printable(str(self.path)), printable(str(self.path.parent))
        said = str(error).replace(path, self.name).replace(f"{folder}/", "")
        return InputError(said) if isinstance(error, InputError) else TopgbError(said)


@asynccontextmanager
async def received(request: Request, service: Service) -> AsyncIterator[Upload]:
    """A block with the file of a form, which is deleted when the block ends.

    Raises `ProblemError` 400, 413, 415 or 429.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise ProblemError(415, f"the body must be {FORM} with a field file; send a form")
    async with _form(request) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise ProblemError(400, "the form has no file; put one in its field file")
        if (file.size or 0) > service.settings.upload_bytes:
            most = service.settings.upload_bytes
            raise ProblemError(413, f"the file has {file.size:,} bytes, and may have {most:,}; send a smaller one")
        choice = from_texts(TagChoice, {key: value for key, value in form.items() if isinstance(value, str)})
        name = printable(Path((file.filename or "").replace("\\", "/")).name)[-_LONGEST_NAME:] or "the file"
        with service.working(), tempfile.TemporaryDirectory(prefix="topgb-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / f"upload{_plain(suffix_of(name))}"
            await service.in_thread(lambda: _copy(file, path))
            yield Upload(path, name, choice)


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """The form of a request, whose parser's refusals become problems."""
    parsing = request.form(max_files=1, max_fields=8, max_part_size=1 << 12)
    try:
        form = await parsing
    except HTTPException as error:
        reason = printable(str(error.detail)).rstrip(".")
        raise ProblemError(
            error.status_code, f"the form cannot be read ({reason}); send one file, and the fields that /docs names"
        ) from None
    try:
        yield form
    finally:
        await form.close()


def _copy(file: UploadFile, path: Path) -> None:
    with open(path, "wb") as copy:
        shutil.copyfileobj(file.file, copy, 1 << 20)


def _plain(suffix: str) -> str:
    return suffix if len(suffix) <= 16 and set(suffix) <= _SUFFIX else ""

"""Download a partition of YouTube-8M: several files at a time, each checked, and resumed where it broke."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from topgb.errors import InputError, TopgbError, option
from topgb.files import refuse_undecodable, write_failure
from topgb.progress import SILENT, Progress
from topgb.results import Result
from topgb.youtube8m.fetch import StoppedError, fetch_file, file_md5
from topgb.youtube8m.http import PATIENT, FetchError, Patience
from topgb.youtube8m.plan import PLANS, fetch_plan, find_partition, refuse_collisions, take_shard

# When this many files in a row fail, the network or the server is at fault, and the rest would fail too.
MOST_FAILURES = 20

_TICK_SECONDS = 0.5
_LAST_SECONDS = 1.0

Value = TypeVar("Value")


@dataclass(repr=False)
class Download(Result):
    """The result of `download`, in numbers of files.

    files     asked for
    there     already there
    fetched   fetched now
    received  bytes that came
    failed    (name, reason) of each file that failed

    All other files were not tried, because `MOST_FAILURES` in a row had failed.
    """

    files: int
    there: int = 0
    fetched: int = 0
    received: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def count_bytes(self, count: int) -> None:
        """Count `count` more bytes; any thread may call this."""
        with self._lock:
            self.received += count

    @property
    def untried(self) -> int:
        """The number of files given up without a try."""
        return self.files - self.there - self.fetched - len(self.failed)


@dataclass(frozen=True)
class DownloadOptions:
    """Options of `download`.

    mirror    the server of the files, as for `find_partition`
    plans     the server of the plans, as for `find_partition`
    jobs      number of files fetched at a time
    patience  how long to wait for the servers

    Raises `InputError` if `jobs` is less than 1.
    """

    mirror: str = "us"
    plans: str = PLANS
    jobs: int = 8
    patience: Patience = PATIENT

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise InputError(f"{self.jobs} files cannot be fetched at a time; the least is 1")


DEFAULT_OPTIONS = DownloadOptions()


def download(
    folder: Path,
    partition: str,
    shard: tuple[int, int] | None = None,
    options: DownloadOptions = DEFAULT_OPTIONS,
    force: bool = False,
    progress: Progress = SILENT,
) -> Download:
    """Fetch a partition's files into `folder` (2018: YouTube-8M's own `download.py`).

    `shard` (X, Y) takes the X-th of Y parts. A file gets its name once its MD5 sum is the plan's; until then it is
    called `.NAME.partial`, and the next call resumes it. The sums of existing files are checked. A file with another
    sum is refused before anything is fetched; with `force` it is fetched again.

    Failures are returned, not raised. Raises `InputError` for a malformed argument or plan and for refused files,
    `TopgbError` if the plan's server is out of reach or `folder` cannot be written.
    """
    refuse_undecodable(folder)
    found = find_partition(partition, options.mirror, options.plans)
    files = fetch_plan(found, options.patience)
    if shard is not None:
        files = take_shard(files, shard)
    _make_folder(folder, list(files))
    there = [name for name in files if (folder / name).exists()]
    differing = set(_differing_files(folder, files, there, options.jobs, progress))
    if differing and not force:
        more = f" and {len(differing) - 1:,} more" if len(differing) > 1 else ""
        raise InputError(
            f"{folder} has other bytes in {min(differing)}{more} than {partition}, of another partition or by damage; "
            f"choose another folder, or fetch them anew with {option('force', True)}"
        )
    done = Download(len(files), there=len(there) - len(differing))

    def fetch(name: str, stop: threading.Event) -> str | None:
        try:
            replace = name in differing
            fetch_file(found.file(name), folder / name, files[name], replace, options.patience, stop, done.count_bytes)
        except FetchError as error:
            return str(error)
        return None

    _fetch_all(fetch, sorted(files.keys() - set(there) | differing), options.jobs, progress, done)
    return done


def _make_folder(folder: Path, names: Sequence[str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a download needs a directory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_collisions(folder, names)
    except OSError as error:
        raise write_failure(folder, error) from error


def _differing_files(
    folder: Path, files: dict[str, str], there: Sequence[str], jobs: int, progress: Progress
) -> list[str]:
    """The existing files whose MD5 is not the plan's."""
    for path in (folder / name for name in there):
        if not path.is_file():
            raise InputError(f"{path} is not a file and cannot be replaced by one; choose another folder")

    def check(name: str, stop: threading.Event) -> bool:
        try:
            return file_md5(folder / name, stop) == files[name]
        except OSError as error:
            raise TopgbError(f"cannot read {folder / name}: {error.strerror}; check its permissions") from error

    differing = []
    if there:
        progress.begin("checking", len(there), "files")
    try:
        with closing(_in_parallel(check, there, jobs)) as results:
            for name, right in results:
                if name is not None:
                    progress.advance(1)
                    if not right:
                        differing.append(name)
    finally:
        progress.end()
    return differing


def _fetch_all(
    fetch: Callable[[str, threading.Event], str | None],
    wanted: Sequence[str],
    jobs: int,
    progress: Progress,
    done: Download,
) -> None:
    """Call `fetch` for every file, and note in `done` its result: None, or why it failed."""
    started, failures_in_a_row = time.monotonic(), 0
    if wanted:
        progress.begin("downloading", done.files, "files", done.there)
    try:
        with closing(_in_parallel(fetch, wanted, jobs)) as results:
            for name, reason in results:
                rate = done.received / max(time.monotonic() - started, 1e-9)
                progress.advance(0 if name is None else 1, f"{done.received / 1e6:,.0f} MB, {rate / 1e6:.1f} MB/s")
                if name is None:
                    continue
                if reason is None:
                    done.fetched += 1
                    failures_in_a_row = 0
                    continue
                done.failed.append((name, reason))
                failures_in_a_row += 1
                if failures_in_a_row == MOST_FAILURES:
                    break
    finally:
        progress.end()
    done.failed.sort()


def _in_parallel(
    work: Callable[[str, threading.Event], Value], items: Sequence[str], jobs: int
) -> Generator[tuple[str | None, Value | None], None, None]:
    """(item, result) in the order in which `jobs` threads finish, and (None, None) now and then while none does.

    An error in `work` is raised here. If the consumer stops early, the event that `work` was given is set.
    """
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[str, Value | None, BaseException | None]] = queue.SimpleQueue()
    for item in items:
        waiting.put(item)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                finished.put((item, work(item, stop), None))
            except StoppedError:
                return
            except BaseException as error:
                finished.put((item, None, error))

    # Daemon threads: one that waits for a silent server must not hold up the end of the program.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(jobs, len(items)))]
    for thread in threads:
        thread.start()
    try:
        left = len(items)
        while left:
            try:
                done, result, error = finished.get(timeout=_TICK_SECONDS)
            except queue.Empty:
                yield None, None
                continue
            if error is not None:
                raise error
            left -= 1
            yield done, result
    finally:
        stop.set()
        deadline = time.monotonic() + _LAST_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

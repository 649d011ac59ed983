"""A partition's plan, which lists its files with their MD5 sums, and the part of it to download."""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from topgb.errors import InputError, TopgbError, option
from topgb.json_reading import parse_json
from topgb.youtube8m.http import FetchError, Patience, fetch_bytes

MIRRORS = ("us", "eu", "asia")
PLANS = "http://data.yt8m.org"
# YouTube-8M's own plans have a fifth of a megabyte.
MOST_PLAN_BYTES = 64 << 20

_PARTITION = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+/[A-Za-z0-9_-]+")
# Names come from the network and become paths and parts of addresses: only these characters, and no leading dot.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_SHARD = re.compile(r"([0-9]{1,9}),([0-9]{1,9})")


@dataclass(frozen=True)
class Partition:
    """A partition (`2/frame/train`), the address of its plan, and the address of the folder of its files."""

    name: str
    plan: str
    folder: str

    def file(self, name: str) -> str:
        """The address of the file `name`."""
        return f"{self.folder}/{name}"


def find_partition(name: str, mirror: str = "us", plans: str = PLANS) -> Partition:
    """The partition `name` (VERSION/LEVEL/SPLIT) with its addresses.

    `mirror` is one of YouTube-8M's, or the address of another server, which has files at MIRROR/PARTITION/NAME. The
    plan is at PLANS/VERSION/download_plans/LEVEL_SPLIT.json. Raises `InputError` if one of them is malformed.
    """
    if not _PARTITION.fullmatch(name):
        raise InputError(f"{option('partition')} {name!r} is not VERSION/LEVEL/SPLIT, such as 2/frame/train")
    if mirror in MIRRORS:
        mirror = f"http://{mirror}.data.yt8m.org"
    elif "://" not in mirror:
        raise InputError(f"there is no mirror {mirror!r}; there are {', '.join(MIRRORS)}, or give an address, http://…")
    version, level, split = name.split("/")
    return Partition(
        name,
        f"{_address(option('plans'), plans)}/{version}/download_plans/{level}_{split}.json",
        f"{_address(option('mirror'), mirror)}/{name}",
    )


def parse_shard(text: str) -> tuple[int, int]:
    """X and Y of `X,Y`, the X-th of Y parts. Raises `InputError` for anything else."""
    match = _SHARD.fullmatch(text.replace(" ", ""))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(
            f"{option('shard')} {text!r} is not X,Y with X from 1 to Y; 1,100 is the first of a hundred parts"
        )
    return int(match[1]), int(match[2])


def fetch_plan(partition: Partition, patience: Patience) -> dict[str, str]:
    """The MD5 sum, in lower case, of every file of the partition, by name, in name order.

    Raises `InputError` if the server has no plan or a malformed one, `TopgbError` if the server is out of reach.
    """
    try:
        raw = fetch_bytes(partition.plan, MOST_PLAN_BYTES, patience)
    except FetchError as error:
        sentence = f"cannot fetch the plan of {partition.name} from {partition.plan}: {error}"
        if error.again:
            raise TopgbError(f"{sentence}; check the connection and try again") from error
        raise InputError(f"{sentence}; check the names of partition and server") from error
    try:
        plan = parse_json(raw)
    except ValueError:
        raise InputError(f"the plan at {partition.plan} is not JSON; check that the server holds plans") from None
    return _checked_plan(plan, partition.plan)


def take_shard(files: dict[str, str], shard: tuple[int, int]) -> dict[str, str]:
    """The files whose name's MD5, as a number, is X − 1 modulo Y; YouTube-8M's own `download.py` divides alike.

    Raises `InputError` if there is none.
    """
    part, parts = shard
    taken = {name: md5 for name, md5 in files.items() if _md5_number(name) % parts == part - 1}
    if not taken:
        raise InputError(f"{option('shard', shard)} takes none of the plan's {len(files):,} files; give fewer parts")
    return taken


def refuse_collisions(folder: Path, names: Sequence[str]) -> None:
    """Raise `InputError` if names differ only in case and the file system of `folder` ignores case."""
    seen: dict[str, str] = {}
    pairs = [(seen[name.lower()], name) for name in names if seen.setdefault(name.lower(), name) != name]
    if pairs and not tells_case(folder):
        one, other = pairs[0]
        raise InputError(
            f"the file system of {folder} takes {one} and {other} for the same file ({len(pairs):,} such pairs); "
            "choose a folder on one that tells upper case from lower"
        )


def tells_case(folder: Path) -> bool:
    """Whether the file system of `folder` distinguishes case. Raises `OSError` if it cannot be written."""
    with tempfile.NamedTemporaryFile(prefix=".Case-", dir=folder) as probe:
        return not (folder / Path(probe.name).name.lower()).exists()


def _address(option: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        sound = False
    if not sound:
        raise InputError(f"{option} {text!r} is not the address of a server; give one such as http://host/folder")
    return text.rstrip("/")


def _checked_plan(plan: Any, address: str) -> dict[str, str]:
    files = plan.get("files") if isinstance(plan, dict) else None
    if not isinstance(files, dict) or not files:
        raise InputError(f"the plan at {address} lists no files; it must be an object whose 'files' maps names to MD5s")
    for name, md5 in files.items():
        if not _NAME.fullmatch(name):
            raise InputError(
                f"the plan at {address} names a file {name[:80]!r}, which is no plain file name; mistrust it"
            )
        if not isinstance(md5, str) or not _MD5.fullmatch(md5):
            raise InputError(
                f"the plan at {address} has no MD5 sum for {name}, but {str(md5)[:80]!r}; get another plan"
            )
    return {name: files[name].lower() for name in sorted(files)}


def _md5_number(name: str) -> int:
    return int(hashlib.md5(name.encode(), usedforsecurity=False).hexdigest(), 16)

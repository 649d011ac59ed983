"""Bounds of a server, and how long it waits."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from topgb.errors import InputError, option

MB = 1 << 20


@dataclass(frozen=True)
class Settings:
    """How a server answers.

    token         the token of requests in `Authorization: Bearer …`; None, on loopback only, lets all in
    hosts         host names that requests may use, besides addresses and localhost
    window        seconds that a request waits for others, to be computed together with them
    batch         most videos in one call of the model
    queue         most videos that wait; more are refused with 429
    body_bytes    most bytes of a body of `/v1/predict`
    upload_bytes  most bytes of a file for `/v1/tag`
    held_bytes    most bytes of bodies that are held in memory at once, for all clients together
    stored_bytes  most bytes of files for `/v1/tag` that are stored at once, for all clients together
    uploads       most files for `/v1/tag` that are worked with, or wait for it, at once
    video_seconds most seconds of a video that are looked at
    read_seconds  seconds in which a body must have come
    work_seconds  seconds that one video's features may take
    drain_seconds seconds for which requests may finish when the server is asked to end
    examples      a folder of files that the page offers
    """

    token: str | None = None
    hosts: tuple[str, ...] = ()
    window: float = 0.002
    batch: int = 64
    queue: int = 512
    body_bytes: int = 64 * MB
    upload_bytes: int = 200 * MB
    held_bytes: int = 512 * MB
    stored_bytes: int = 2048 * MB
    uploads: int = 32
    video_seconds: float = 600.0
    read_seconds: float = 60.0
    work_seconds: float = 300.0
    drain_seconds: float = 30.0
    examples: Path | None = None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server at `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Raise `InputError` if other machines could reach the server at `host` without a token, or if it is weak."""
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise InputError(
            f"{option('token')} must be 8 characters of ASCII or more, without blanks; choose a longer one"
        )
    if token is None and not is_loopback(host):
        raise InputError(
            f"{option('host', host)} lets other machines ask the server; protect it with {option('token', 'SECRET')}, "
            f"or use {option('host', '127.0.0.1')}"
        )

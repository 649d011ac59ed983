"""topgb serve."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from topgb.cli.arguments import Device, ResidentOption, multiply_fast


def serve(
    models: Annotated[
        list[Path], typer.Argument(help="Model files, or folders of runs.", metavar="MODEL|RUN…", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Where to listen; other hosts than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 takes any free one, which is printed.", max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="TOPGB_TOKEN",
            show_envvar=True,
            help="Requests must send it in Authorization: Bearer. The variable keeps it out of the list of processes.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A host name that a proxy may use in requests; repeatable.")
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Files that the page offers to try: videos, sounds, features.")
    ] = None,
    device: Device = "auto",
    resident: ResidentOption = None,
    window: Annotated[
        float, typer.Option(help="Milliseconds that a request waits for others, to be computed together with them.")
    ] = 2.0,
    max_upload: Annotated[str, typer.Option(metavar="SIZE", help="The most bytes of an uploaded file.")] = "200M",
    max_seconds: Annotated[float, typer.Option(help="How many seconds of a video are looked at.")] = 600.0,
) -> None:
    """Show a page to try models on, and answer HTTP requests, until Ctrl-C, SIGTERM or SIGHUP.

    `POST /v1/predict` takes features, `POST /v1/tag` a file; `/docs` describes both.
    """
    from topgb.api.serving import serve as answer

    multiply_fast(device)
    answer(
        list(models),
        host=host,
        port=port,
        token=token,
        allow_host=allow_host or [],
        examples=examples,
        device=device,
        resident=resident,
        window=window,
        max_upload=max_upload,
        max_seconds=max_seconds,
        max_unpacked=_max_unpacked(),
    )
    # The work is done. Who asks for the end twice gets the exit code all the same.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _max_unpacked() -> int | None:
    """The value of --max-unpacked, which every command takes."""
    from topgb.unpacked_size import max_unpacked

    return max_unpacked()

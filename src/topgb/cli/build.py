"""topgb build."""

from pathlib import Path
from typing import Annotated

import typer

from topgb import terminal
from topgb.cli.arguments import Force, UseEma, Vocabulary


def build(
    run: Annotated[Path, typer.Argument(help="A directory that topgb train has filled.", metavar="RUN")],
    use_ema: UseEma = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The model file.  [default: RUN/ema.safetensors or raw.safetensors, as chosen, else model.safetensors]"
        ),
    ] = None,
    vocabulary: Vocabulary = None,
    force: Force = False,
) -> None:
    """Make a model file from a run's best checkpoint (the latest, if the run did not validate); no records needed."""
    from topgb.training.build import build_model_file
    from topgb.training.run_folder import MODEL_FILE
    from topgb.vocabulary import read_vocabulary

    names = {None: MODEL_FILE, True: "ema.safetensors", False: "raw.safetensors"}
    path = out or run / names[use_ema]
    header = build_model_file(run, path, use_ema, force, None if vocabulary is None else read_vocabulary(vocabulary))
    terminal.say(f"{path}: {header.origin['weights']} weights of step {header.origin['step']}")

"""topgb data: records in and out."""

import typer

app = typer.Typer(help="Look at records, check them, and make them.", no_args_is_help=True)

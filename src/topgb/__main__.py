"""`python -m topgb`."""

from topgb.cli.main import run

run()

"""The program `topgb`, and `python -m topgb`."""

from topgb.cli.interrupts import Interrupts, end_interrupted
from topgb.terminal import hold_streams


def run() -> None:
    """Run the command line; see `topgb.cli.main.run`."""
    hold_streams()
    interrupts = Interrupts()
    try:
        interrupts.install()
        from topgb.cli.main import run as run_command_line

        run_command_line(lambda: interrupts.came)
    except KeyboardInterrupt:
        end_interrupted()
    finally:
        interrupts.stop_listening()


if __name__ == "__main__":
    run()

"""``python -m bittern`` and the ``bittern`` program."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # before anything else is imported: scripts ask this often
        from bittern import __version__

        sys.stdout.write(f"bittern {__version__}\n")
        return
    try:
        from bittern.cli.main import run, watch_signals

        watch_signals()
    except KeyboardInterrupt:  # while that was being imported: nothing has begun
        sys.exit(130)
    sys.exit(run(arguments))


if __name__ == "__main__":
    main()

"""``python -m bittern`` and the ``bittern`` program."""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:  # before anything else is imported: scripts ask this often
        from bittern import __version__

        try:
            sys.stdout.write(f"bittern {__version__}\n")
            sys.stdout.flush()
        except (OSError, AttributeError):
            pass  # it cannot be written to, or is closed: the long way says so
        else:
            return
    try:
        import signal

        takes_interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if takes_interrupts:
            # Nothing has begun. An exception may come where an import would swallow it.
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        from bittern.cli.main import let_signals_kill, run, watch_signals

        watch_signals()
        if takes_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run(arguments)
        let_signals_kill()  # all is done: Python would tell of an exception on its way out
        gc.freeze()  # nor search for garbage there, a tenth of the time of a short run
    except KeyboardInterrupt:  # before the first of these, or between two
        os._exit(130)
    sys.exit(code)


if __name__ == "__main__":
    main()

"""
The verbs and their arguments, as cyclopts sees them.

A verb's module is imported when the verb is called. Wrong usage becomes one
line and exit code 2; every option has a twin in the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence

from cyclopts import (
    App,
    ArgumentCollection,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    Token,
    UnusedCliTokensError,
)
from cyclopts.config import Env

from bittern import __version__
from bittern.cli.environment import PREFIX, variable_name
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.output import name_stream
from bittern.cli.source import STDIN

VERBS = {
    "get": ("bittern.cli.get:get", "Download torrents."),
    "seed": ("bittern.cli.seed:seed", "Seed data that is already here."),
    "create": ("bittern.cli.create:create", "Make a .torrent from a file or folder."),
    "info": ("bittern.cli.info:info", "Show what is inside a .torrent or magnet link."),
    "verify": ("bittern.cli.verify:verify", "Hash data on disk and compare it with a .torrent."),
    "magnet": ("bittern.cli.magnet:magnet", "Print the magnet link of a .torrent."),
    "follow": (
        "bittern.cli.follow:follow",
        "Keep a folder at the newest version under a public key.",
    ),
    "publish": (
        "bittern.cli.publish:publish",
        "Make a torrent the newest under a public key.",
    ),
    "tracker": ("bittern.cli.tracker:tracker", "Run a tracker."),
    "dht": ("", "Run a DHT node, or ask the DHT."),
    "demo": (
        "bittern.cli.demo:demo",
        "Watch a whole transfer step by step, on this machine alone.",
    ),
}

DHT_VERBS = {
    "node": ("bittern.cli.dht_node:node", "Run a DHT node."),
    "peers": ("bittern.cli.dht_peers:peers", "Find peers of a torrent."),
    "get": ("bittern.cli.dht_items:get", "Find an item and print its value."),
    "put": ("bittern.cli.dht_items:put", "Store a value."),
    "ping": ("bittern.cli.dht_peers:ping", "Ask one node whether it is there."),
    "sample": ("bittern.cli.dht_peers:sample", "List info hashes that nodes store peers of."),
    "stats": ("bittern.cli.dht_node:stats", "Tell how large the DHT is and how it sees us."),
}
"""What follows ``bittern dht``."""

USAGES = {
    "bittern.cli.get:get": "Usage: bittern get [OPTIONS] SOURCE...",
    "bittern.cli.seed:seed": "Usage: bittern seed --data PATH [OPTIONS] TORRENT...",
    "bittern.cli.dht_peers:sample": "Usage: bittern dht sample [OPTIONS] [HOST:PORT]",
}
"""How verbs are called whose arguments the parser would call ARGS, as they may be left out."""

HELP = """\
A complete BitTorrent system: download, seed, make and check torrents, run a tracker or a DHT node.

Every option --like-this may also be given in the environment as BITTERN_LIKE_THIS.

Exit codes: 0 done, 1 other error, 2 wrong usage, 3 not found, 4 nobody could be reached, \
5 disk full or not writable, 6 data does not match, 7 unfinished, 8 not allowed, 130 interrupted.
"""


class _Environment(Env):
    """
    Options from the environment: ``BITTERN_PORT`` for ``--port``.

    Unlike its parent it leaves positional arguments alone, so that a stray
    variable cannot become a file name, and counts ``BITTERN_VERBOSE=2``.
    """

    def __call__(self, _app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        """Add the environment's values for every option that was not given."""
        for argument in arguments:
            if argument.tokens or not argument.name.startswith("--"):
                continue
            key = self._convert_argument(commands, argument)
            text = os.environ.get(key, "")
            for name in tuple(argument.parameter.name or ())[1:]:
                if not text and name.startswith("--"):
                    key = variable_name(name[2:])
                    text = os.environ.get(key, "")
            if not text or argument.children:
                continue
            if argument.parameter.count:
                for index in range(_parse_count(key, text)):
                    argument.append(
                        Token(keyword=key, implicit_value=1, source=self.source, index=index)
                    )
                continue
            for index, value in enumerate(argument.env_var_split(text)):
                argument.append(Token(keyword=key, value=value, source=self.source, index=index))


def _parse_count(key: str, text: str) -> int:
    if text not in ("0", "1", "2", "3"):
        raise CommandFailed(f"{key} must be 0, 1 or 2, not {text!r}", ExitCode.USAGE)
    return int(text)


def build_app(*, asks_for_help: bool = False) -> App:
    """Return the program with all its verbs."""
    formatter = None
    if asks_for_help:
        from bittern.cli.flowing import FlowingHelp

        formatter = FlowingHelp()
    app = App(
        name="bittern",
        version=f"bittern {__version__}",
        help=HELP,
        help_format="plaintext",
        help_formatter=formatter,
        config=[_Environment(PREFIX, command=False, show=False)],
        default_parameter=Parameter(
            negative=(), show_default=False, json_list=False, json_dict=False
        ),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # one place decides what an interrupt means
    )
    for name, (target, summary) in VERBS.items():
        if target:
            _add_verb(app, name, target, summary)
    _add_verbs(app, "dht", DHT_VERBS)
    return app


def _add_verbs(app: App, name: str, verbs: dict[str, tuple[str, str]]) -> None:
    """Add a verb that consists of verbs."""
    group = App(name=name, help=VERBS[name][1])
    for inner, (target, summary) in verbs.items():
        _add_verb(group, inner, target, summary)
    app.command(group)


def _add_verb(app: App, name: str, target: str, summary: str) -> None:
    app.command(target, name=name, help=summary, usage=USAGES.get(target))


def call(arguments: Sequence[str]) -> int:
    """
    Parse a command line and run its verb.

    Returns:
        The verb's exit code; USAGE after complaining about a wrong command line.
    """
    _check_verb(arguments)
    # cyclopts takes a lone "-" for an option.
    tokens = [STDIN if argument == "-" else argument for argument in arguments]
    asks = bool({"--help", "-h", "--version"} & set(arguments)) or not set(arguments) - {"dht"}
    try:
        app = build_app(asks_for_help=asks)
        result = app(tokens, exit_on_error=False, print_error=False)
    except OSError as error:
        if asks:  # the parser has written that itself
            raise name_stream(error, sys.stdout) from error
        raise
    except CycloptsError as error:
        raise CommandFailed(_usage_text(error), ExitCode.USAGE) from error
    return result if isinstance(result, int) else ExitCode.DONE


def _check_verb(arguments: Sequence[str]) -> None:
    """Refuse an unknown verb here: the parser would import all verbs to say the same."""
    _check_one(arguments, VERBS, "bittern")
    if arguments and arguments[0] == "dht":
        _check_one(arguments[1:], DHT_VERBS, "bittern dht")


def _check_one(arguments: Sequence[str], verbs: Collection[str], program: str) -> None:
    if not arguments or arguments[0].startswith("-") or arguments[0] in verbs:
        return
    import difflib

    close = difflib.get_close_matches(arguments[0], verbs, n=1)
    hint = f"did you mean {close[0]}?" if close else f"{program} --help lists them"
    raise CommandFailed(f"no verb {arguments[0]!r}; {hint}", ExitCode.USAGE)


def _usage_text(error: CycloptsError) -> str:
    """Return what is wrong with a command line in one phrase."""
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return f"unexpected argument {error.unused_tokens[0]!r}"
    if isinstance(error, MissingArgumentError) and error.argument:
        return _missing_text(error, error.argument.name)
    error.verbose = False
    text = str(error).strip().rstrip(".")
    return text[:1].lower() + text[1:]


def _missing_text(error: MissingArgumentError, name: str) -> str:
    if error.keyword is not None:
        return f"{error.keyword} needs a value"
    verb = " ".join(error.command_chain or ())
    unknown = [token for token in error.unused_tokens or () if token.startswith("-")]
    head = f"unknown option: {unknown[0]}; " if unknown else ""
    return f"{head}{verb} needs {name}: see bittern {verb} --help"

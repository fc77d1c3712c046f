"""What the documents say: examples run, links lead somewhere, the story's bytes are real."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import shlex
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import bittern
from bittern.cli.demo import FILE_LENGTH, FILE_NAME, PIECE_LENGTH, make_content
from bittern.cli.dissect import BYTES_PER_LINE, Part, dissect, hex_lines
from bittern.core.bitfield import Bitfield
from bittern.storage.creator import CreateOptions, create_torrent
from tests.cli.test_contract import OPTIONS, options_of, the_app
from tests.rules import ROOT, SRC, read_sources

DOCS = ROOT / "docs"
LIBRARY = (DOCS / "library.md").read_text()
STORY = (DOCS / "how-a-torrent-works.md").read_text()
MAX_TRACE = 96
"""Bytes of a message that the demo sees."""


def blocks(text: str, language: str = "") -> list[str]:
    """Return the code blocks of a document that are in a language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in found if name == language]


# --- the library ----------------------------------------------------------------------------


def test_every_public_name_is_in_the_table() -> None:
    rows = re.findall(r"^\|(.*?)\|", LIBRARY.partition("## All names")[2], re.MULTILINE)
    named = re.findall(r"`(\w+)`", " ".join(rows))
    assert sorted(named) == sorted(bittern.__all__)


class Examples:
    """The examples of ``library.md``, and what they need: a seed on loopback."""

    def __init__(self, folder: Path, seed: bittern.Session, raw: bytes) -> None:
        self.folder = folder
        self.seed = seed
        self.raw = raw
        self.torrent_file = folder / "content.torrent"
        self.torrent_file.write_bytes(raw)
        self.code: dict[str, Any] = {}
        for block in blocks(LIBRARY, "python"):
            exec(compile(block, "library.md", "exec"), self.code)  # that is the test


CONTENT = {"a.txt": b"a" * 50_000, "b/c.txt": b"c" * 70_000}


@pytest.fixture
async def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Examples]:
    """Examples that stay on this machine and find the seed by themselves."""
    for name, data in CONTENT.items():
        path = tmp_path / "seed/content" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    raw = create_torrent(tmp_path / "seed/content", num_threads=1)
    local = {"listen_host": "127.0.0.1", "enable_dht": False, "enable_lsd": False}
    config = bittern.SessionConfig(listen_port=0, **local)  # type: ignore[arg-type]  # mixed
    async with bittern.Session(config) as seed:
        await seed.add(raw, bittern.TorrentConfig(output=tmp_path / "seed"))
        peer = bittern.Endpoint("127.0.0.1", seed.port)
        monkeypatch.setattr(
            bittern,
            "SessionConfig",
            lambda **options: bittern.engine.config.SessionConfig(**{**options, **local}),
        )
        monkeypatch.setattr(bittern, "TorrentConfig", partial(bittern.TorrentConfig, peers=(peer,)))
        yield Examples(tmp_path, seed, raw)


def has_content(folder: Path) -> bool:
    return all((folder / "content" / name).read_bytes() == data for name, data in CONTENT.items())


async def test_download(examples: Examples, tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        await examples.code["download"](examples.torrent_file, tmp_path / "out")
    assert has_content(tmp_path / "out")


async def test_watch_show_and_explain(examples: Examples, tmp_path: Path) -> None:
    async with bittern.Session(bittern.SessionConfig(listen_port=0)) as session:
        torrent = await session.add(
            examples.raw, bittern.TorrentConfig(output=tmp_path / "out", paused=True)
        )
        assert examples.code["explain"](torrent) == ["It is paused and goes on when it is resumed."]
        watching = asyncio.create_task(examples.code["watch"](torrent))
        await asyncio.sleep(0)
        await torrent.resume()
        async with asyncio.timeout(30):
            await torrent.wait_complete()
            assert sorted(await watching) == sorted(CONTENT)
        assert examples.code["show"](torrent).startswith("100% at ")
        assert examples.code["explain"](torrent)[0].startswith("Everything is here")
    assert has_content(tmp_path / "out")


async def test_read_while_it_comes(examples: Examples, tmp_path: Path) -> None:
    async with bittern.Session(bittern.SessionConfig(listen_port=0)) as session:
        config = bittern.TorrentConfig(output=tmp_path / "out", paused=True)
        torrent = await session.add(examples.raw, config)
        assert not examples.code["has_piece"](torrent, 0)
        await torrent.resume()
        async with asyncio.timeout(30):
            for piece in range(torrent.info.geometry.num_pieces):
                await examples.code["wait_for_piece"](torrent, piece)
                assert examples.code["has_piece"](torrent, piece)
        assert torrent.num_left == 0


async def test_choose(examples: Examples, tmp_path: Path) -> None:
    async with bittern.Session(bittern.SessionConfig(listen_port=0)) as session:
        torrent = await examples.code["only_some"](session, examples.torrent_file, tmp_path / "out")
        async with asyncio.timeout(30):
            await torrent.wait_complete()
        assert torrent.file_progress()[0] == len(CONTENT["a.txt"])
    assert (tmp_path / "out/content/a.txt").read_bytes() == CONTENT["a.txt"]


def test_careful(examples: Examples) -> None:
    config = examples.code["careful"]()
    assert (config.max_download_rate, config.max_connections) == (1_000_000, 100)


async def test_adjust(examples: Examples, tmp_path: Path) -> None:
    async with bittern.Session(bittern.SessionConfig(listen_port=0)) as session:
        torrent = await session.add(examples.raw, bittern.TorrentConfig(output=tmp_path / "old"))
        await examples.code["adjust"](session, torrent, tmp_path / "new")
        async with asyncio.timeout(30):
            await torrent.wait_complete()
        assert session.config.max_download_rate == 2_000_000
        assert (torrent.config.max_upload_rate, torrent.config.priorities) == (50_000, {0: 7})
    assert (tmp_path / "new/pictures/first.txt").read_bytes() == CONTENT["a.txt"]


async def test_follow(examples: Examples, tmp_path: Path) -> None:
    async with bittern.Session(bittern.SessionConfig(listen_port=0)) as session:
        left = await examples.code["follow"](
            session, examples.raw, tmp_path / "new", tmp_path / "seed"
        )
    assert left == 0
    assert has_content(tmp_path / "new")


async def test_with_mirror(
    examples: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = bittern.SessionConfig(listen_port=0, enable_dht=False, enable_lsd=False)
    async with bittern.Session(config) as session:
        torrent = await examples.code["with_mirror"](
            session, examples.torrent_file, "http://127.0.0.1:9/"
        )
        assert [source.name for source in torrent.sources() if source.kind == "web_seed"] == [
            "http://127.0.0.1:9/"
        ]


async def test_share(examples: Examples, tmp_path: Path) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(b"mine" * 10_000)
    info_hash = await examples.code["share"](path, tmp_path / "mine.torrent")
    assert (
        bittern.decode_metainfo((tmp_path / "mine.torrent").read_bytes()).info.info_hash
        == info_hash
    )


def test_every_example_is_run_above() -> None:
    code: dict[str, Any] = {}
    for block in blocks(LIBRARY, "python"):
        exec(compile(block, "library.md", "exec"), code)
    functions = {name for name, value in code.items() if type(value) is type(blocks)}
    tests = Path(__file__).read_text()
    assert functions
    assert not [name for name in functions if f'code["{name}"]' not in tests]


def test_every_public_name_is_there_and_documented() -> None:
    for name in bittern.__all__:
        value = getattr(bittern, name)
        assert value.__doc__, name
    assert set(bittern.__all__) <= set(dir(bittern))
    assert len(bittern.__all__) == len(set(bittern.__all__))
    assert bittern.events.Event is bittern.Event
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(bittern, "nothing")  # noqa: B009  # a type checker would refuse it


# --- the story -------------------------------------------------------------------------------

HEX = re.compile(r"^((?:[0-9a-f]{2} )*[0-9a-f]{2})(?: \.\.\.)?(?:$|  )")
TITLE = re.compile(r"^[a-z ]+ -> [a-z ]+(?:: ([a-z ]+))?$")


def hex_of(lines: list[str]) -> bytes:
    """Return the bytes at the beginnings of lines."""
    return b"".join(bytes.fromhex(match[1]) for line in lines if (match := HEX.match(line)))


def messages() -> list[tuple[str, list[str], bytes]]:
    """Return kind, lines and bytes of every message in the story."""
    found = []
    for block in blocks(STORY):
        for part in block.split("\n\n"):
            title, *lines = part.splitlines()
            if match := TITLE.match(title):
                found.append((match[1] or "handshake", lines, hex_of(lines)))
    return found


@pytest.fixture(scope="module")
def original() -> bytes:
    return make_content(0)


@pytest.fixture(scope="module")
def torrent(original: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the .torrent of the story."""
    path = tmp_path_factory.mktemp("story") / FILE_NAME
    path.write_bytes(original)
    urls = re.findall(r"\[((?:http|udp)://[0-9.:]+/announce)\]", STORY)
    options = CreateOptions(
        piece_length=PIECE_LENGTH,
        trackers=tuple((url,) for url in urls),
        version=bittern.Version.V1,
    )
    return create_torrent(path, options=options, num_threads=1)


def test_the_messages_are_what_the_program_shows(original: bytes) -> None:
    kinds = set()
    for kind, lines, raw in messages():
        kinds.add(kind)
        if kind == "piece":
            index, begin = (int.from_bytes(raw[at : at + 4], "big") for at in (5, 9))
            start = index * PIECE_LENGTH + begin
            raw = (raw[:13] + original[start : start + 16_384])[:MAX_TRACE]
        shown = render(dissect(kind, raw))
        if kind == "extended":  # its dictionary is cut short in print
            shown, lines = shown[:3], lines[:3]
        assert [line.rstrip() for line in lines] == shown[: len(lines)], kind
    assert kinds >= {"handshake", "have all", "have none", "bitfield", "interested", "unchoke"}
    assert kinds >= {"request", "piece", "have", "not interested", "extended"}


def render(parts: list[Part]) -> list[str]:
    lines = hex_lines(parts)
    width = min(3 * BYTES_PER_LINE - 1, max(len(text) for text, _ in lines))
    return [f"{text:<{width}}  {meaning}".rstrip() for text, meaning in lines]


def test_the_handshakes_name_the_torrent(torrent: bytes) -> None:
    info_hash = bittern.decode_metainfo(torrent).info.info_hash
    assert info_hash is not None
    assert f"info hash         {info_hash}" in STORY
    handshakes = [raw for kind, _, raw in messages() if kind == "handshake"]
    assert len(handshakes) == 2
    assert {raw[28:48] for raw in handshakes} == {bytes(info_hash)}
    assert len({raw[48:68] for raw in handshakes}) == 2


def test_the_torrent_begins_as_shown_and_has_its_size(torrent: bytes) -> None:
    (dump,) = (block for block in blocks(STORY) if block.startswith("64 38 3a"))
    raw = hex_of(dump.splitlines())
    assert torrent.startswith(raw)
    text = "".join(line.rpartition("  ")[2] for line in dump.splitlines())
    assert text.encode() == raw
    assert f"Here it has {len(torrent):,} bytes" in STORY
    assert f"{FILE_LENGTH} bytes" in STORY


def test_the_bitfield_is_that_of_the_pieces_listed() -> None:
    (listed,) = re.findall(r"^(\d+) verified +([\d ]+)$", STORY, re.MULTILINE)
    pieces = [int(number) for number in listed[1].split()]
    assert len(pieces) == int(listed[0])
    (raw,) = (raw for kind, _, raw in messages() if kind == "bitfield")
    assert raw[5:] == Bitfield.of(FILE_LENGTH // PIECE_LENGTH, pieces).to_wire()


# --- all of them -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*DOCS.rglob("*.md"), *ROOT.glob("*.md")], ids=lambda p: p.name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (path.parent / target).exists(), target


# --- the events ------------------------------------------------------------------------------


def test_every_event_of_the_command_line_is_in_its_table_with_its_keys() -> None:
    table = (DOCS / "command-line.md").read_text().partition("## Events")[2]
    rows = {}
    for names, _, keys in re.findall(r"^\|(.*?)\|(.*?)\|(.*)\|$", table, re.MULTILINE):
        rows.update(dict.fromkeys(re.findall(r"`(\w+)`", names), keys))
    kinds = [kind for kind in vars(bittern.events).values() if isinstance(kind, type)]
    events = [kind for kind in kinds if issubclass(kind, bittern.Event)]
    assert len(events) > 25
    for kind in events:
        if kind is not bittern.Event:
            name = re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
            keys = {field.name for field in dataclasses.fields(kind)}
            assert keys <= set(re.findall(r"`(\w+)`", rows[name])), name
    assert rows.keys() >= NOTES
    figures = {field.name for field in dataclasses.fields(bittern.TorrentStats)}
    assert figures <= set(re.findall(r"`(\w+)`", rows["progress"]))


NOTES = {"listening", "resolved", "added", "torrent_saved", "progress", "failed", "stopping"}
"""What is told beside events."""


# --- the options -----------------------------------------------------------------------------


def test_every_option_is_told_of_and_no_other() -> None:
    names = {
        name
        for verb in OPTIONS
        for argument in options_of(verb)
        for name in argument.parameter.name or argument.names
        if name.startswith("--")
    }
    page = (DOCS / "command-line.md").read_text()
    assert names - options_in(page) == set()
    rest = {"--help", "--like-this", "--no-date", "--version"}
    for path in (*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"):
        assert options_in(path.read_text()) - names - rest == set(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("text", [(ROOT / "README.md").read_text(), STORY], ids=["readme", "story"])
def test_the_command_lines_shown_can_be_typed(text: str) -> None:
    lines = re.findall(r"^(bittern .*)", "".join(blocks(text)), re.MULTILINE)
    assert len(lines) > 5
    for line in lines:
        _, *words = shlex.split(line, comments=True)
        command, _, _ = the_app().parse_args(words, exit_on_error=False, print_error=False)
        assert command is not None, line


def options_in(text: str) -> set[str]:
    """Return the options that a text names."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", text))


# --- the threats -----------------------------------------------------------------------------


def test_every_threat_that_code_names_is_in_the_list_and_no_other() -> None:
    listed = re.findall(
        r"^\| ([A-Z]\d+) \|", (DOCS / "design/threats.md").read_text(), re.MULTILINE
    )
    assert len(listed) == len(set(listed))
    named: set[str] = set()
    for source in read_sources():
        for group in re.findall(r"(?:Limits?:|threats\.md|\()([^.)\n]*)", source.text):
            named.update(re.findall(r"\b[PHNTWFR]\d{1,2}\b", group))
    assert named == set(listed)


def test_the_map_names_modules_that_are_there() -> None:
    text = (DOCS / "design" / "README.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text))
    assert len(named) > 40
    places = {name: ROOT / name if name.startswith("tests/") else SRC / name for name in named}
    assert [name for name, place in sorted(places.items()) if not place.is_file()] == []

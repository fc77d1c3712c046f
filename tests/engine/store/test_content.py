"""engine.store.content: where a torrent's bytes lie and what they must hash to."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.codec.info import Version
from bittern.codec.metainfo import Metainfo, decode_metainfo
from bittern.core.bitfield import Bitfield
from bittern.core.errors import ConfigError, MetainfoError
from bittern.engine.config import SessionConfig, TorrentConfig
from bittern.engine.store.content import (
    Content,
    check_choice,
    open_content,
    wanted_bits,
    wanted_priorities,
)
from bittern.storage.creator import CreateOptions, create_torrent
from bittern.storage.file_paths import Folding
from bittern.storage.handles import HandleCache
from bittern.storage.layout import Layout

FILES = {"a": 20_000, "b": 40_000, "c/d": 50_000, "e": 0}
PIECE = 16_384


def make(folder: Path, version: Version = Version.V1) -> Metainfo:
    """Return a torrent of some files below ``folder / "made"``."""
    for name, length in FILES.items():
        path = folder / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * length)
    options = CreateOptions(version=version, piece_length=PIECE)
    return decode_metainfo(create_torrent(folder / "made", options=options, num_threads=1))


def open_it(metainfo: Metainfo, *, session: SessionConfig | None = None, **config: Path) -> Content:
    return open_content(
        metainfo,
        TorrentConfig(**config),  # type: ignore[arg-type]
        session or SessionConfig(),
        HandleCache(),
        folding=Folding(case=False, normalisation=False),
    )


def test_files_are_below_the_output_folder(tmp_path: Path) -> None:
    metainfo = make(tmp_path)
    content = open_it(metainfo, output=tmp_path / "out")
    found = [content.storage.path_of(index) for index in range(len(metainfo.info.files))]
    names = ["/".join(file.path) for file in metainfo.info.files]
    assert found == [tmp_path / "out" / "made" / name for name in names]
    assert not (tmp_path / "out").exists(), "nothing is touched yet"
    assert not content.is_started
    assert open_it(metainfo, output=tmp_path).is_started


def test_a_folder_of_another_name(tmp_path: Path) -> None:
    metainfo = make(tmp_path)
    content = open_it(metainfo, output=tmp_path / "out", data_path=tmp_path / "x" / "mine")
    first = content.storage.path_of(0)
    assert first == tmp_path / "x" / "mine" / "a"
    assert content.paths[0] == ("mine", "a")


def test_a_file_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    raw = create_torrent(tmp_path / "one", num_threads=1)
    content = open_it(decode_metainfo(raw), data_path=tmp_path / "two")
    assert content.storage.path_of(0) == tmp_path / "two"


def test_a_suffix_until_complete(tmp_path: Path) -> None:
    content = open_it(
        make(tmp_path), output=tmp_path / "out", session=SessionConfig(part_suffix=".part")
    )
    assert content.storage.path_of(0).name == "a.part"


def test_a_file_that_is_there_and_empty_is_no_start(tmp_path: Path) -> None:
    metainfo = make(tmp_path)
    (tmp_path / "out" / "made").mkdir(parents=True)
    for name in "ae":
        (tmp_path / "out" / "made" / name).write_bytes(b"")
    assert not open_it(metainfo, output=tmp_path / "out").is_started


def test_a_v2_torrent_without_its_layers_is_refused(tmp_path: Path) -> None:
    """Only a hybrid can do without them."""
    for version in (Version.V2, Version.HYBRID):
        whole = make(tmp_path, version)
        bare = Metainfo(whole.info)
        assert open_it(whole, output=tmp_path)
        if version is Version.HYBRID:
            assert open_it(bare, output=tmp_path)
        else:
            with pytest.raises(MetainfoError, match="piece hashes"):
                open_it(bare, output=tmp_path)


def test_layers_that_the_data_brings_are_more_once_all_are_known(tmp_path: Path) -> None:
    whole = make(tmp_path, Version.HYBRID)
    bare = Metainfo(whole.info)
    content = open_it(bare, output=tmp_path)
    assert not content.has_more_layers(bare)
    for root, layer in whole.piece_layers.items():
        assert not content.has_more_layers(bare)
        content.hashes.add_piece_layer(root, layer)
    assert content.has_more_layers(bare)
    assert not content.has_more_layers(whole)


@pytest.mark.parametrize(
    ("files", "pieces"),
    [
        (None, {0, 1, 2, 3, 4, 5, 6}),
        (frozenset[int](), set()),
        (frozenset([0]), {0, 1}),
        (frozenset([1]), {1, 2, 3}),
        (frozenset([0, 2]), {0, 1, 3, 4, 5, 6}),
        (frozenset([3]), set()),
    ],
)
def test_pieces_of_wanted_files(
    files: frozenset[int] | None, pieces: set[int], tmp_path: Path
) -> None:
    metainfo = make(tmp_path)
    layout = open_it(metainfo, output=tmp_path).layout
    config = TorrentConfig(files=files)
    priorities = wanted_priorities(layout, 7, config)
    assert {index for index, level in enumerate(priorities) if level} == pieces
    assert set(priorities) <= {0, 4}
    assert wanted_bits(metainfo.info, config) == Bitfield.of(7, pieces).bits


@pytest.mark.parametrize(
    ("files", "priorities", "levels"),
    [
        (None, {}, [4, 4, 4, 4, 4, 4, 4]),
        (None, {1: 7}, [4, 7, 7, 7, 4, 4, 4]),
        (None, {2: 1}, [4, 4, 4, 4, 1, 1, 1]),
        (frozenset([0, 1]), {0: 1, 1: 2, 2: 7}, [1, 2, 2, 2, 0, 0, 0]),
    ],
)
def test_a_piece_has_the_highest_priority_of_its_wanted_files(
    files: frozenset[int] | None, priorities: dict[int, int], levels: list[int], tmp_path: Path
) -> None:
    layout = open_it(make(tmp_path), output=tmp_path).layout
    config = TorrentConfig(files=files, priorities=priorities)
    assert wanted_priorities(layout, 7, config) == levels


def test_padding_has_no_wishes_of_its_own(tmp_path: Path) -> None:
    info = make(tmp_path, Version.HYBRID).info
    pads = frozenset(index for index, entry in enumerate(info.files) if entry.is_pad)
    layout, num_pieces = Layout(info.files, info.geometry), info.geometry.num_pieces
    pad, last = min(pads), len(info.files) - 1
    pieces = set(layout.pieces_of_file(last))
    assert set(layout.pieces_of_file(pad)) - pieces
    levels = wanted_priorities(layout, num_pieces, TorrentConfig(files=frozenset([pad, last])))
    assert {index for index, level in enumerate(levels) if level} == pieces
    assert check_choice(TorrentConfig(files=pads | {0}), info)
    with pytest.raises(ConfigError, match=f"^file {min(pads)} is padding$"):
        check_choice(TorrentConfig(files=pads), info)


def test_files_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    info = make(tmp_path).info
    config = TorrentConfig(files=frozenset(range(4)), priorities={3: 1})
    assert check_choice(config, info) is config
    for wrong in (
        TorrentConfig(files=frozenset([0, 4])),
        TorrentConfig(files=None, priorities={4: 7}),
        TorrentConfig(files=frozenset([0]), priorities={0: 1, 4: 7}),
    ):
        with pytest.raises(ConfigError, match="no file 4: the last one is 3"):
            check_choice(wrong, info)

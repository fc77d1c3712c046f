"""Torrent files: what stands beside the info dictionary, writing, size and speed."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.codec import metainfo as module
from bittern.codec.bencode import METAINFO_LIMITS, Encodable, Value, decode, encode
from bittern.codec.info import MAX_PIECES
from bittern.codec.merkle import root_of
from bittern.codec.metainfo import (
    Metainfo,
    Version,
    decode_info,
    decode_metainfo,
    encode_metainfo,
    format_metainfo,
)
from bittern.core.errors import MetainfoError
from tests.codec.zoo.cases import GROUPS
from tests.codec.zoo.torrents import BASES, BLOCK, LAYER_A, ROOT_A, changed, encoded
from tests.rules import ROOT

INFO = encode(BASES["v1"][b"info"])


def _read(**fields: object) -> Metainfo:
    """Read a torrent with other values beside ``info``; underscores stand for spaces."""
    places = {key.replace("_", " ").replace("  ", "-"): value for key, value in fields.items()}
    return decode_metainfo(encoded(changed("v1", places)))


class TestTrackers:
    @pytest.mark.parametrize(
        ("announce", "announce_list", "tiers"),
        [
            (b"udp://a", None, (("udp://a",),)),
            (b"", None, ()),
            (b"  udp://a ", None, (("udp://a",),)),
            (b"\xff", None, ()),
            (b"a\x00b", None, ()),
            (b"x" * 4097, None, ()),
            (5, None, ()),
            (b"udp://a", [[b"udp://b"]], (("udp://b",),)),
            (b"udp://a", [[b"udp://b", b"udp://c"], [b"udp://d"]], (("udp://b", "udp://c"), ("udp://d",))),
            (b"udp://a", [], (("udp://a",),)),
            (b"udp://a", [[], [b""], [5]], (("udp://a",),)),
            (b"udp://a", 5, (("udp://a",),)),
            (b"udp://a", [[b"udp://b"], [b"udp://b"], [b"udp://c"]], (("udp://b",), ("udp://c",))),
            (b"udp://a", [b"udp://b", b"udp://c"], (("udp://b",), ("udp://c",))),
        ],
    )  # fmt: skip
    def test_tiers(
        self, announce: Value, announce_list: Value | None, tiers: tuple[tuple[str, ...], ...]
    ) -> None:
        fields: dict[str, object] = {"announce": announce}
        if announce_list is not None:
            fields["announce__list"] = announce_list
        assert _read(**fields).trackers == tiers

    def test_their_number_is_bounded_over_all_tiers(self) -> None:
        tiers = [[b"udp://%d/%d" % (tier, n) for n in range(30)] for tier in range(50)]
        found = _read(announce__list=tiers).trackers
        assert sum(map(len, found)) == module.MAX_TRACKERS


class TestOtherFields:
    @pytest.mark.parametrize(
        ("value", "urls"),
        [
            (b"http://w", ("http://w",)),
            ([b"http://w", b"http://w", 5, b"", b"http://x"], ("http://w", "http://x")),
            (b"", ()),
            (5, ()),
            ({}, ()),
        ],
    )
    def test_seeds_over_http(self, value: Value, urls: tuple[str, ...]) -> None:
        assert _read(url__list=value).web_seeds == urls
        assert _read(httpseeds=value).http_seeds == urls

    def test_their_number_is_bounded(self) -> None:
        found = _read(url__list=[b"http://%d" % n for n in range(300)]).web_seeds
        assert len(found) == module.MAX_WEB_SEEDS

    @pytest.mark.parametrize(
        ("value", "nodes"),
        [
            ([[b"h", 1], [b"\xff", 65535]], (("h", 1),)),
            ([[b"h", 0], [b"h", 65536], [b"", 1], [b"h"], [1, b"h"], 5, [b"h", 1, 2]], ()),
            ([[b"x" * 256, 1]], ()),
            (5, ()),
            ([[b"h", n + 1] for n in range(200)], tuple(("h", n + 1) for n in range(100))),
        ],
    )
    def test_nodes(self, value: Value, nodes: tuple[tuple[str, int], ...]) -> None:
        assert _read(nodes=value).nodes == nodes

    def test_texts(self) -> None:
        found = decode_metainfo(
            encoded(
                changed(
                    "v1",
                    {
                        "comment": b"plain",
                        "comment.utf-8": "cömment".encode(),
                        "created by": b"\xff",
                        "creation date": 7,
                        "encoding": b"GBK",
                    },
                )
            )
        )
        assert (found.comment, found.created_by) == ("cömment", "\udcff")
        assert (found.creation_date, found.encoding, found.name) == (7, "GBK", "n")

    @pytest.mark.parametrize("value", [5, b"", []])
    def test_what_is_no_text_is_none(self, value: Value) -> None:
        found = _read(comment=value, created_by=value, encoding=value)
        assert (found.comment, found.created_by, found.encoding) == (None, None, None)

    @pytest.mark.parametrize("value", [-1, b"7", [], module.MAX_DATE + 1])
    def test_what_is_no_date_is_none(self, value: Value) -> None:
        assert _read(creation_date=value).creation_date is None


class TestPieceLayers:
    @pytest.mark.parametrize("base", ["v2", "v2s", "hy", "hys"])
    def test_they_are_given_by_root(self, base: str) -> None:
        assert dict(decode_metainfo(encoded(BASES[base])).piece_layers) == {ROOT_A: LAYER_A}

    def test_they_cannot_be_changed(self) -> None:
        layers = decode_metainfo(encoded(BASES["v2"])).piece_layers
        with pytest.raises(TypeError):
            layers[ROOT_A] = b""  # type: ignore[index]

    def test_v1_has_none(self) -> None:
        assert dict(_read().piece_layers) == {}


class TestEncode:
    @pytest.mark.parametrize("base", BASES)
    def test_info_is_copied(self, base: str) -> None:
        raw = encode(BASES[base][b"info"])
        layers = BASES[base].get(b"piece layers")
        data = encode_metainfo(raw, trackers=[["udp://a"]], piece_layers=layers)
        found = decode_metainfo(data)
        assert found.info.raw == raw
        assert found.trackers == (("udp://a",),)
        assert dict(found.piece_layers) == (layers or {})

    def test_metainfo_is_written_as_it_was_read(self) -> None:
        data = encode_metainfo(
            INFO,
            trackers=[["udp://a", "udp://b"], ["http://c"]],
            web_seeds=["http://w/"],
            nodes=[("host", 1)],
            comment="c",
            created_by="x",
            creation_date=7,
        )
        assert format_metainfo(decode_metainfo(data)) == data

    def test_even_unsorted_bytes_stay(self) -> None:
        raw = b"d6:pieces0:4:name1:n12:piece lengthi1e6:lengthi0ee"
        data = encode_metainfo(raw, comment="c")
        assert data == b"d7:comment1:c4:info" + raw + b"e"
        assert decode_metainfo(data).info.info_hash == hashlib.sha1(raw).digest()

    def test_nothing_else_is_written_unasked(self) -> None:
        assert encode_metainfo(INFO) == b"d4:info" + INFO + b"e"
        data = encode_metainfo(INFO, trackers=[[], []], comment="", created_by="")
        assert data == b"d4:info" + INFO + b"e"

    def test_single_values_stand_without_lists(self) -> None:
        value = decode(encode_metainfo(INFO, trackers=[["udp://a"]], web_seeds=["http://w"]))
        assert isinstance(value, dict)
        assert sorted(value) == [b"announce", b"info", b"url-list"]
        assert value[b"url-list"] == b"http://w"

    urls = st.text(min_size=1, max_size=9).filter(lambda u: u.isprintable() and u == u.strip())

    @given(
        st.lists(st.lists(urls, min_size=1, max_size=3), max_size=3),
        st.lists(urls, max_size=3, unique=True),
        st.lists(st.tuples(st.just("host"), st.integers(1, 65535)), max_size=3),
        st.none() | st.text(min_size=1),
        st.none() | st.integers(0, module.MAX_DATE),
    )
    def test_what_is_written_is_read_back(
        self,
        tiers: list[list[str]],
        seeds: list[str],
        nodes: list[tuple[str, int]],
        text: str | None,
        date: int | None,
    ) -> None:
        data = encode_metainfo(
            INFO,
            trackers=tiers,
            web_seeds=seeds,
            nodes=nodes,
            comment=text,
            created_by=text,
            creation_date=date,
        )
        assert encode(decode(data, require_sorted=True)) == data
        found = decode_metainfo(data)
        flat = [url for tier in found.trackers for url in tier]
        assert flat == list(dict.fromkeys(url for tier in tiers for url in tier))
        assert found.web_seeds == tuple(seeds)
        assert found.nodes == tuple(nodes)
        assert (found.comment, found.created_by, found.creation_date) == (text, text, date)


def test_too_long_a_file_is_refused_before_anything_is_made() -> None:
    data = bytes(METAINFO_LIMITS.max_length + 1)
    with pytest.raises(MetainfoError, match="input is too long"):
        decode_metainfo(data)


class TestLargeOnes:
    """Time is measured as that of the process, and generously: the machine may be busy."""

    @staticmethod
    def _seconds(data: bytes) -> float:
        began = time.process_time()
        decode_metainfo(data)
        return time.process_time() - began

    def test_two_million_pieces(self) -> None:
        info: Encodable = {
            b"length": MAX_PIECES * BLOCK,
            b"name": b"n",
            b"piece length": BLOCK,
            b"pieces": bytes(20 * MAX_PIECES),
        }
        data = encode({b"info": info})
        assert self._seconds(data) < 0.5

    @pytest.mark.slow
    def test_twenty_thousand_files(self) -> None:
        files: list[Encodable] = [
            {b"length": 1000 + n, b"path": [b"folder%d" % (n % 99), b"file %06d.bin" % n]}
            for n in range(20_000)
        ]
        total = sum(1000 + n for n in range(20_000))
        info: Encodable = {
            b"files": files,
            b"name": b"n",
            b"piece length": 1 << 18,
            b"pieces": bytes(20 * -(-total >> 18)),
        }
        assert self._seconds(encode({b"info": info})) < 2

    @pytest.mark.slow
    def test_memory_of_many_files_in_a_deep_folder(self) -> None:
        """A v2 tree names a folder once; our paths do so for each file."""
        tree: Value = {b"%05d" % n: {b"": {b"length": 0}} for n in range(2000)}
        for _ in range(90):
            tree = {b"f": tree}
        info: Encodable = {
            b"file tree": tree,
            b"meta version": 2,
            b"name": b"n",
            b"piece length": BLOCK,
        }
        data = encode({b"info": info})
        tracemalloc.start()
        decode_metainfo(data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 * len(data) + (1 << 20)

    def test_a_long_piece_layer(self) -> None:
        num_pieces = 20_000
        layer = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(num_pieces))
        root = root_of(layer)
        leaf: Encodable = {b"": {b"length": num_pieces * BLOCK, b"pieces root": root}}
        info: Encodable = {
            b"file tree": {b"f": leaf},
            b"meta version": 2,
            b"name": b"n",
            b"piece length": BLOCK,
        }
        data = encode({b"info": info, b"piece layers": {root: layer}})
        assert decode_metainfo(data).piece_layers[root] == layer


def test_a_file_of_exactly_one_piece_has_no_layer() -> None:
    """BEP 52: its root is the hash of its piece."""
    root = hashlib.sha256(b"piece").digest()
    info: Encodable = {
        b"file tree": {b"f": {b"": {b"length": BLOCK, b"pieces root": root}}},
        b"meta version": 2,
        b"name": b"n",
        b"piece length": BLOCK,
    }
    for fields in ({b"info": info}, {b"info": info, b"piece layers": {}}):
        assert decode_metainfo(encode(fields)).piece_layers == {}
    with pytest.raises(MetainfoError, match="no file of more than one piece"):
        decode_metainfo(encode({b"info": info, b"piece layers": {root: root}}))


def test_what_is_kept_of_a_link_may_lack_piece_layers_but_has_no_wrong_ones() -> None:
    layers = [
        b"".join(hashlib.sha256(b"%d %d" % (f, n)).digest() for n in range(3)) for f in (1, 2)
    ]
    roots = [root_of(layer) for layer in layers]
    info: Encodable = {
        b"file tree": {
            b"%d" % number: {b"": {b"length": 3 * BLOCK, b"pieces root": root}}
            for number, root in enumerate(roots)
        },
        b"meta version": 2,
        b"name": b"n",
        b"piece length": BLOCK,
    }
    for known in ({}, {roots[0]: layers[0]}, dict(zip(roots, layers, strict=True))):
        data = encode({b"info": info, b"piece layers": known})
        assert decode_metainfo(data, may_lack_layers=True).piece_layers == known
        if len(known) < len(roots):
            with pytest.raises(MetainfoError, match="missing"):
                decode_metainfo(data)
    assert decode_metainfo(encode({b"info": info}), may_lack_layers=True).piece_layers == {}
    wrong = encode({b"info": info, b"piece layers": {roots[0]: layers[1]}})
    with pytest.raises(MetainfoError, match="does not hash to its root"):
        decode_metainfo(wrong, may_lack_layers=True)


def test_names_that_others_import_from_here() -> None:
    assert decode_info(INFO).version is Version.V1
    assert set(module.__all__) <= set(vars(module))


def test_reading_a_torrent_imports_little() -> None:
    """``bittern info`` has 200 ms in all."""
    code = (
        "import sys; import bittern.codec.metainfo; "
        "slow = ('asyncio', 'socket', 'ssl', 'logging', 'threading'); "
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.strip() == "[]"


def test_zoo() -> None:
    for case in GROUPS["metainfo"]:
        case.check()


@pytest.mark.parametrize("name", BASES)
def test_metainfo_is_a_value(name: str) -> None:
    """It can be compared, copied and pickled, as for a process of a pool."""
    metainfo = decode_metainfo(encoded(BASES[name]))
    again = decode_metainfo(encoded(BASES[name]))
    assert metainfo == again
    assert metainfo.info.geometry == again.info.geometry
    assert hash(metainfo.info) == hash(again.info)
    assert copy.copy(metainfo) == copy.deepcopy(metainfo) == metainfo
    found = pickle.loads(pickle.dumps(metainfo))
    assert found == metainfo
    assert isinstance(found.piece_layers, MappingProxyType)
    assert isinstance(found.info.geometry.padding, MappingProxyType)

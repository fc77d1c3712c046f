"""``bittern dht get`` and ``put``: items of up to 1,000 bytes, kept by the network (BEP 44)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bittern.cli.dht import DhtOptions, parse_hex, run_question
from bittern.cli.exits import CommandFailed, ExitCode
from bittern.cli.output import print_json, print_line, print_table, write_bytes
from bittern.cli.source import STDIN, is_magnet, load_magnet
from bittern.codec.bencode import DHT_LIMITS, Value, decode
from bittern.core.errors import BencodeDecodeError, KrpcFailure
from bittern.dht.items import Item, mutable_target
from bittern.dht.limits import MAX_SALT_LENGTH, MAX_VALUE_LENGTH
from bittern.net.dht import Dht
from bittern.net.dht_requests import ItemResult
from bittern.net.signing import KEY_LENGTH, SigningKey
from bittern.storage.key_file import make_key_file, read_key_file

if TYPE_CHECKING:
    from bittern.cli.output import Json

TARGET_LENGTH = 20


def get(
    target: str,
    /,
    *,
    salt: Annotated[str, Parameter(metavar="TEXT")] = "",
    raw: bool = False,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008 - immutable
) -> int:
    """
    Find an item and print its value; exit code 3 if nobody has it.

    Args:
        target: 40 hexadecimal digits as "put" prints them, a public key of 64, or a
            magnet link with one.
        salt: Of the mutable item.
        raw: Write the value as it is, or its bencoding if it is no string.
        json: Write one JSON object to stdout.
        dht: How to get into the DHT.
    """
    place, salt_bytes = place_of(target, encode_salt(salt))

    async def ask(node: Dht) -> int:
        result = await node.get(place, salt_bytes)
        if result.item is None:
            raise CommandFailed(f"{place.hex()}: nobody has this item", ExitCode.NOT_FOUND)
        _tell_item(result, raw=raw, json=json)
        return ExitCode.DONE

    return run_question(dht, ask)


def put(
    value: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    key: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    new_key: bool = False,
    salt: Annotated[str, Parameter(metavar="TEXT")] = "",
    seq: Annotated[int | None, Parameter(metavar="N")] = None,
    cas: Annotated[int | None, Parameter(metavar="N")] = None,
    bencoded: bool = False,
    json: bool = False,
    dht: DhtOptions = DhtOptions(),  # noqa: B008
) -> int:
    """
    Store a value with the nodes nearest to it, for about two hours, and print its target.

    Args:
        value: A text of up to about 1,000 bytes, "-" for standard input.
        key: Sign it with this key, so that it can be replaced later: a mutable item.
        new_key: Make the key first; the file must not exist yet.
        salt: Tells apart several items under one key.
        seq: Its sequence number. Default: one more than that of the item it replaces.
        cas: Replace only an item with this sequence number.
        bencoded: The value is bencoded already.
        json: Write one JSON object to stdout.
        dht: How to get into the DHT.
    """
    content = read_value(value, is_bencoded=bencoded)
    salt_bytes = encode_salt(salt)
    if key is None:
        if new_key or salt_bytes or seq is not None or cas is not None:
            raise CommandFailed(
                "--new-key, --salt, --seq and --cas are for items with a --key", ExitCode.USAGE
            )
        signer = None
    else:
        signer = SigningKey(make_key_file(key) if new_key else read_key_file(key))

    async def ask(node: Dht) -> int:
        try:
            if signer is None:
                result = await node.put_immutable(content)
            else:
                result = await node.put_mutable(signer, content, seq=seq, salt=salt_bytes, cas=cas)
        except KrpcFailure as error:
            raise CommandFailed(f"not stored: {error.message}") from error
        check_stored(result)
        assert result.item is not None
        _tell_stored(result.item, result, json=json)
        return ExitCode.DONE

    return run_question(dht, ask)


def place_of(text: str, salt: bytes = b"") -> tuple[bytes, bytes]:
    """
    Return the target and the salt of what a person named.

    Raises:
        CommandFailed: it is neither a target nor a public key nor a link with one.
    """
    if is_magnet(text):
        magnet = load_magnet(text)
        if magnet.public_key is None:
            raise CommandFailed(f"{text}: the link names no public key", ExitCode.USAGE)
        salt = salt or magnet.salt
        return mutable_target(magnet.public_key, salt), salt
    if (target := parse_hex(text, TARGET_LENGTH)) is not None:
        return target, salt
    if (key := parse_hex(text, KEY_LENGTH)) is not None:
        return mutable_target(key, salt), salt
    raise CommandFailed(
        f"{text}: neither a target of 40 hexadecimal digits nor a public key of 64", ExitCode.USAGE
    )


def encode_salt(text: str) -> bytes:
    """Return a salt as bytes; CommandFailed if it is too long."""
    salt = text.encode("utf-8", "surrogateescape")
    if len(salt) > MAX_SALT_LENGTH:
        raise CommandFailed(f"--salt: more than {MAX_SALT_LENGTH} bytes", ExitCode.USAGE)
    return salt


def read_value(text: str, *, is_bencoded: bool) -> Value:
    """
    Return what is to be stored.

    Raises:
        CommandFailed: it is too long, or not the bencoding it is said to be.
    """
    if text == STDIN:
        data = sys.stdin.buffer.read(MAX_VALUE_LENGTH + 1)
    else:
        data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_VALUE_LENGTH:
        raise CommandFailed(f"the value is longer than {MAX_VALUE_LENGTH} bytes", ExitCode.USAGE)
    if not is_bencoded:
        return data
    try:
        return decode(data, limits=DHT_LIMITS, require_sorted=True)
    except BencodeDecodeError as error:
        raise CommandFailed(f"the value: {error}", ExitCode.USAGE) from error


def check_stored(result: ItemResult) -> None:
    """
    Refuse a result of which nothing was stored.

    Raises:
        CommandFailed: the text says why.
    """
    if result.num_stored:
        return
    if result.refusals:
        raise CommandFailed(f"not stored: {result.refusals[0].message}")
    raise CommandFailed("no DHT node took the item", ExitCode.UNREACHABLE)


def text_of(value: bytes) -> str | None:
    """Return a bencoded string as text; None if it is no string, or no UTF-8."""
    decoded = _decode(value)
    if not isinstance(decoded, bytes):
        return None
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        return None


def _decode(value: bytes) -> Value | None:
    try:
        return decode(value, limits=DHT_LIMITS)
    except BencodeDecodeError:
        return None


def _tell_item(result: ItemResult, *, raw: bool, json: bool) -> None:
    item = result.item
    assert item is not None
    text = text_of(item.value)
    if json:
        print_json({**item_json(item), "text": text, "num_copies": result.num_copies})
    elif raw:
        decoded = _decode(item.value)
        write_bytes(decoded if isinstance(decoded, bytes) else item.value)
    else:
        print_line(item.value.decode("utf-8", "surrogateescape") if text is None else text)


def _tell_stored(item: Item, result: ItemResult, *, json: bool) -> None:
    if json:
        print_json({**item_json(item), "num_stored": result.num_stored})
        return
    rows = [("target", item.target.hex())]
    if item.key is not None:
        rows += [("key", item.key.hex()), ("salt", item.salt.decode("utf-8", "surrogateescape"))]
        rows += [("seq", str(item.seq))]
    print_table([*rows, ("nodes", str(result.num_stored))])


def item_json(item: Item) -> dict[str, Json]:
    """Return an item as JSON has it; ``value`` is its bencoding in hexadecimal."""
    is_mutable = item.key is not None
    return {
        "target": item.target.hex(),
        "value": item.value.hex(),
        "key": item.key.hex() if item.key is not None else None,
        "salt": item.salt.hex() if is_mutable else None,
        "seq": item.seq if is_mutable else None,
        "signature": item.signature.hex() if is_mutable else None,
    }

"""net.signing: Ed25519 as BEP 44 uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bittern.dht.items import signed_message
from bittern.net.signing import KEY_LENGTH, SIGNATURE_LENGTH, SigningKey, verify

# BEP 44, test vectors 1 and 2: their private key is an expanded one, so only checked.
PUBLIC = bytes.fromhex("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548")
PLAIN = bytes.fromhex(
    "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff"
    "1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01"
)
SALTED = bytes.fromhex(
    "6834284b6b24c3204eb2fea824d82f88883a3d95e8b4a21b8c0ded553d17d17d"
    "df9a8a7104b1258f30bed3787e6cb896fca78c58f8e03b5f18f14951a87d9a08"
)


def test_the_vectors_of_bep_44() -> None:
    assert verify(PUBLIC, PLAIN, signed_message(b"12:Hello World!", 1))
    assert verify(PUBLIC, SALTED, signed_message(b"12:Hello World!", 1, b"foobar"))
    assert not verify(PUBLIC, PLAIN, signed_message(b"12:Hello World!", 2))
    assert not verify(PUBLIC, SALTED, signed_message(b"12:Hello World!", 1))


def test_the_first_vector_of_rfc_8032() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = SigningKey(seed)
    assert key.public_key.hex().startswith("d75a980182b10ab7d54bfed3c964073a")
    assert len(key.public_key) == KEY_LENGTH
    signature = key.sign(b"")
    assert signature.hex().startswith("e5564300c360ac729086e2cc806e828a")
    assert len(signature) == SIGNATURE_LENGTH
    assert verify(key.public_key, signature, b"")


@pytest.mark.parametrize(
    ("key", "signature"),
    [(b"", PLAIN), (b"k" * 31, PLAIN), (PUBLIC, b""), (PUBLIC, b"s" * 63), (b"\xff" * 32, PLAIN)],
)
def test_what_strangers_send_never_raises(key: bytes, signature: bytes) -> None:
    assert not verify(key, signature, b"message")


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError):
        SigningKey(b"short")


def test_the_library_is_loaded_on_first_use() -> None:
    code = "import bittern.net.dht, sys; print('cryptography' in sys.modules)"
    path = [entry for entry in sys.path if entry]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"

"""Key files: made for their owner only, read from other programs, everything else refused."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from bittern.core.errors import InputError, StorageError
from bittern.storage.key_file import MAX_KEY_FILE_LENGTH, make_key_file, read_key_file

SEED = bytes(range(32))

ED25519 = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""
X25519 = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VuBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""
ENCRYPTED = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBAmqw4oo/8FYLvMsRDf
IdLDAgIIADAMBggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQRsRCJ/cPAGmQpjAj
rXPSHQRAP7cZvsrMgNBLIy90X+LjHygl13Z8tJDxPtT5zcQaqtM/gkTwcIMpmwfq
uAmJpcgRqjOTrv+msaUWFJrhqEMOmA==
-----END ENCRYPTED PRIVATE KEY-----
"""


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_key_file_gives_the_key_back_and_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "my.key"
    seed = make_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(seed) == 32
    assert read_key_file(path) == seed
    assert make_key_file(tmp_path / "other.key") != seed


def test_a_known_file_holds_the_known_key(tmp_path: Path) -> None:
    assert read_key_file(write(tmp_path / "a", ED25519)) == SEED


def test_a_key_is_never_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "my.key", "precious")
    with pytest.raises(StorageError, match="exists"):
        make_key_file(path)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(StorageError, match="others may read"):
        read_key_file(write(tmp_path / "my.key", ED25519, mode))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file"):
        read_key_file(tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no private key"),
        ("rubbish", "no private key"),
        ("\0" * (MAX_KEY_FILE_LENGTH + 5), "no private key"),
        (ED25519[:60], "no private key"),
        (ED25519.replace("PRIVATE", "PUBLIC"), "no private key"),
        (X25519, "not one of Ed25519"),
        (ENCRYPTED, "encrypted"),
    ],
)
def test_what_is_no_key_is_refused_by_name(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read_key_file(write(tmp_path / "bad.key", text))
    assert "bad.key" in str(caught.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_keys_of_openssl_can_be_used(tmp_path: Path) -> None:
    path = tmp_path / "openssl.key"
    command = ["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    path.chmod(0o600)
    assert len(read_key_file(path)) == 32

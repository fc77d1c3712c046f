"""What carries bytes keeps the contract of ``net.stream``: TCP and the simulated network."""

from __future__ import annotations

import inspect

import pytest

from bittern.net import stream
from bittern.net.tcp import TcpListener, TcpNetwork, TcpStream
from bittern.testing.host import SimHost
from bittern.testing.network import SimNetwork


def members(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("contract", "kind"),
    [
        (stream.Stream, TcpStream),
        (stream.Listener, TcpListener),
        (stream.Network, TcpNetwork),
        (stream.Network, SimHost),
    ],
)
def test_every_transport_has_every_method_with_the_same_parameters(
    contract: type, kind: type
) -> None:
    for name in members(contract):
        promised = vars(contract)[name]
        if not inspect.isfunction(promised):
            continue
        kept = getattr(kind, name)
        assert list(inspect.signature(kept).parameters) == list(
            inspect.signature(promised).parameters
        ), name


def test_the_simulated_network_is_made_of_hosts() -> None:
    assert inspect.isclass(SimNetwork)
    assert members(stream.StreamHandler) == {"data_received", "writable", "connection_lost"}

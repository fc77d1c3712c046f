"""policy.open_piece: what a piece in progress says of its blocks; the rest is in test_pieces."""

from __future__ import annotations

from hashlib import sha1

from bittern.policy.open_piece import FREE, RECEIVED, REQUESTED, OpenPiece, PeerShare


def test_a_piece_is_opened_free_or_asked_of_one_peer() -> None:
    free, peer = OpenPiece(3, 2, sha1()), PeerShare("a")
    assert (bytes(free.states), free.num_free, free.owner) == (bytes((FREE, FREE)), 2, None)
    assert not free.waited_for()
    assert not free.received_blocks()
    asked = OpenPiece(3, 2, sha1(), peer)
    assert (bytes(asked.states), asked.num_free, asked.owner) == (bytes((REQUESTED,) * 2), 0, peer)
    assert asked.waited_for() == [peer, peer]


def test_a_piece_is_complete_when_all_is_there_and_written() -> None:
    piece = OpenPiece(3, 2, sha1(), PeerShare("a"))
    piece.states[1] = RECEIVED
    piece.num_received = 1
    assert piece.received_blocks() == [1]
    assert len(piece.waited_for()) == 1
    assert not piece.is_complete
    assert repr(piece) == "<OpenPiece 3: 1/2>"
    piece.num_received, piece.num_unwritten = 2, 1
    assert not piece.is_complete
    piece.num_unwritten = 0
    assert piece.is_complete

"""
Our own address, as others see it.

Answers carry the address they go to (BEP 42). One node may lie, so a network has one
vote, the last few dozen votes count, and an address wins with more than half of them
and at least ``MIN_VOTES``. Only answers to queries of ours are votes.

Source: BEP 42 (bootstrapping).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Final

MAX_VOTES: Final = 32
MIN_VOTES: Final = 5


class AddressVote:
    """
    The votes, newest last; at most ``MAX_VOTES`` networks.

    Args:
        winner: our packed address as it was in an earlier run, or None.

    Attributes:
        winner: our packed address; None while nobody agrees. The port is not voted on.
    """

    def __init__(self, winner: bytes | None = None) -> None:
        self.winner = winner
        self._votes: OrderedDict[bytes, bytes] = OrderedDict()

    def cast(self, network: bytes, packed: bytes) -> bool:
        """
        Count the vote of a network.

        Args:
            network: /24 or /64 of the voter; its earlier vote is replaced.
            packed: our address as it sees it.

        Returns:
            True if ``winner`` has changed.
        """
        self._votes.pop(network, None)
        self._votes[network] = packed
        if len(self._votes) > MAX_VOTES:
            self._votes.popitem(last=False)
        if packed == self.winner:
            return False
        num_votes = Counter(self._votes.values())[packed]
        if num_votes < MIN_VOTES or num_votes * 2 <= len(self._votes):
            return False
        self.winner = packed
        return True

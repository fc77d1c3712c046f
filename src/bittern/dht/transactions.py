"""
Queries of ours that wait for an answer.

An answer counts only if it carries the transaction id, four random bytes, and comes
from where the query went. There is no retry (BEP 5): a query ends after four seconds.
Before that its waiter hears that it is slow, and one in a hurry that it has failed; when
follows from how long other answers took (``patience``). An answer that comes later still
speaks for its node.

The waits are the same for all queries at one time, so three queues in sending order are
all the timers there are.

Source: BEP 5. Limit: N2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from bittern.codec.krpc_message import Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import QUERY_TIMEOUT, TRANSACTION_ID_LENGTH
from bittern.dht.patience import Patience


class Waiter(Protocol):
    """Who hears what becomes of one query: an end, and perhaps before it that it is slow."""

    @property
    def is_hurried(self) -> bool:
        """Whether to fail when an answer takes longer than expected, not after four seconds."""

    def answered(self, response: Response, /, *, now: float) -> None:
        """Take the answer."""

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        """Hear of a refusal, or of silence."""

    def slowed(self, *, now: float) -> None:
        """Hear that an answer takes longer than most."""


class Transaction:
    """One query under way; ``waiter`` is None when it has heard the end already."""

    __slots__ = ("endpoint", "is_open", "sent_at", "transaction_id", "waiter")

    def __init__(
        self, transaction_id: bytes, endpoint: Endpoint, waiter: Waiter, sent_at: float
    ) -> None:
        self.transaction_id = transaction_id
        self.endpoint = endpoint
        self.waiter: Waiter | None = waiter
        self.sent_at = sent_at
        self.is_open = True


class Transactions:
    """
    All queries under way.

    Args:
        random_bytes: gives that many unpredictable bytes.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._open: dict[bytes, Transaction] = {}
        self._patience = Patience()
        self._to_slow: deque[Transaction] = deque()
        self._to_give_up: deque[Transaction] = deque()
        self._to_end: deque[Transaction] = deque()

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, endpoint: Endpoint, waiter: Waiter, *, now: float) -> bytes:
        """Note a query to ``endpoint`` and return its transaction id."""
        transaction_id = self._random_bytes(TRANSACTION_ID_LENGTH)
        while transaction_id in self._open:
            transaction_id = self._random_bytes(TRANSACTION_ID_LENGTH)
        transaction = Transaction(transaction_id, endpoint, waiter, now)
        self._open[transaction_id] = transaction
        self._to_slow.append(transaction)
        if waiter.is_hurried:
            self._to_give_up.append(transaction)
        self._to_end.append(transaction)
        return transaction_id

    def take(self, transaction_id: bytes, source: Endpoint, *, now: float) -> Transaction | None:
        """Return and end the query that an answer from ``source`` belongs to, or None."""
        transaction = self._open.get(transaction_id)
        if transaction is None or transaction.endpoint != source:
            return None
        self._patience.note(now - transaction.sent_at)
        self._close(transaction)
        return transaction

    def expire(self, *, now: float) -> list[Transaction]:
        """Tell waiters that it takes long; end and return the queries without an answer."""
        for transaction in self._due(self._to_slow, self._patience.slow, now):
            if transaction.waiter is not None:
                transaction.waiter.slowed(now=now)
        for transaction in self._due(self._to_give_up, self._patience.end, now):
            waiter, transaction.waiter = transaction.waiter, None
            if waiter is not None:
                waiter.failed(QueryTimeout(), now=now)
        ended = list(self._due(self._to_end, QUERY_TIMEOUT, now))
        for transaction in ended:
            self._close(transaction)
        return ended

    @staticmethod
    def _due(queue: deque[Transaction], timeout: float, now: float) -> Iterator[Transaction]:
        """Take out, one by one, the open queries of a queue whose time is over."""
        # Added up as in next_timer, so that a timer that was kept is never early.
        while queue and (not queue[0].is_open or queue[0].sent_at + timeout <= now):
            transaction = queue.popleft()
            if transaction.is_open:
                yield transaction

    def next_timer(self) -> float | None:
        """Return the instant of the next ``expire`` that has something to do, or None."""
        due = []
        for queue, timeout in (
            (self._to_slow, self._patience.slow),
            (self._to_give_up, self._patience.end),
            (self._to_end, QUERY_TIMEOUT),
        ):
            while queue and not queue[0].is_open:
                queue.popleft()
            if queue:
                due.append(queue[0].sent_at + timeout)
        return min(due, default=None)

    def _close(self, transaction: Transaction) -> None:
        transaction.is_open = False
        del self._open[transaction.transaction_id]

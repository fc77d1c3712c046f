"""
Queries of ours that wait for an answer.

An answer counts only if it carries the transaction id, four random bytes, and comes
from where the query went. There is no retry (BEP 5): a query fails after four seconds,
and after one second its waiter hears that it is slow.

Both waits are the same for all queries, so two queues in sending order are all the
timers there are.

Source: BEP 5. Limit: N2.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from bittern.codec.krpc_message import Response
from bittern.core.endpoint import Endpoint
from bittern.core.errors import KrpcFailure, QueryTimeout
from bittern.dht.limits import QUERY_TIMEOUT, SLOW_TIMEOUT, TRANSACTION_ID_LENGTH


class Waiter(Protocol):
    """Who hears what becomes of one query: an end, and perhaps before it that it is slow."""

    def answered(self, response: Response, /, *, now: float) -> None:
        """Take the answer."""

    def failed(self, error: KrpcFailure | QueryTimeout, /, *, now: float) -> None:
        """Hear of a refusal, or of four seconds of silence."""

    def slowed(self, *, now: float) -> None:
        """Hear that there has been no answer for a second."""


class Transaction:
    """One query under way."""

    __slots__ = ("endpoint", "is_open", "sent_at", "transaction_id", "waiter")

    def __init__(
        self, transaction_id: bytes, endpoint: Endpoint, waiter: Waiter, sent_at: float
    ) -> None:
        self.transaction_id = transaction_id
        self.endpoint = endpoint
        self.waiter = waiter
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
        self._to_slow: deque[Transaction] = deque()
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
        self._to_end.append(transaction)
        return transaction_id

    def take(self, transaction_id: bytes, source: Endpoint) -> Transaction | None:
        """Return and end the query that an answer from ``source`` belongs to, or None."""
        transaction = self._open.get(transaction_id)
        if transaction is None or transaction.endpoint != source:
            return None
        self._close(transaction)
        return transaction

    def expire(self, *, now: float) -> list[Transaction]:
        """Tell waiters that they are slow; end and return the queries without an answer."""
        while self._to_slow and self._is_due(self._to_slow[0], SLOW_TIMEOUT, now):
            transaction = self._to_slow.popleft()
            if transaction.is_open:
                transaction.waiter.slowed(now=now)
        ended = []
        while self._to_end and self._is_due(self._to_end[0], QUERY_TIMEOUT, now):
            transaction = self._to_end.popleft()
            if transaction.is_open:
                self._close(transaction)
                ended.append(transaction)
        return ended

    def next_timer(self) -> float | None:
        """Return the instant of the next ``expire`` that has something to do, or None."""
        for queue in (self._to_slow, self._to_end):
            while queue and not queue[0].is_open:
                queue.popleft()
        if self._to_slow:
            return min(self._to_slow[0].sent_at + SLOW_TIMEOUT, self._end_time())
        return self._end_time() if self._to_end else None

    def _end_time(self) -> float:
        return self._to_end[0].sent_at + QUERY_TIMEOUT

    def _close(self, transaction: Transaction) -> None:
        transaction.is_open = False
        del self._open[transaction.transaction_id]

    @staticmethod
    def _is_due(transaction: Transaction, timeout: float, now: float) -> bool:
        # As next_timer adds it up, so that a timer that was kept is never early.
        return not transaction.is_open or transaction.sent_at + timeout <= now

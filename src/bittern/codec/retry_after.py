"""
When a web server wants to be asked again: its ``Retry-After``.

Trackers and web seeds say it in the same words: seconds, or a date. How long a wait is
believed is the business of whoever asks.

Source: RFC 9110 section 10.2.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_DECIMAL = re.compile(r"\d{1,18}", re.ASCII)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Return the seconds after which a server wants to be asked again; None if it does not say.

    A date counts from the server's own ``Date``, so that nobody's clock has to be right.

    Args:
        headers: names in lower case.

    Source: RFC 9110 section 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if _DECIMAL.fullmatch(text):
        return float(text)
    try:
        then = parsedate_to_datetime(text)
        now = parsedate_to_datetime(headers.get("date", ""))
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):  # no date, or one without a zone
        return None

from __future__ import annotations

import pytest

from tests.reference import Absent


@pytest.mark.parametrize(
    ("may_be_absent", "consequence"), [(True, pytest.skip.Exception), (False, ImportError)]
)
def test_what_is_asked_of_a_libtorrent_that_is_not_there(
    may_be_absent: bool, consequence: type[BaseException]
) -> None:
    absent = Absent(ImportError("libtorrent"), may_be_absent=may_be_absent)
    with pytest.raises(consequence, match="libtorrent"):
        _ = absent.session


def test_pytest_may_look_at_it() -> None:
    assert not hasattr(Absent(ImportError(), may_be_absent=True), "__test__")

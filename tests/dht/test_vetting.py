"""Who is to be examined, and who has lied (Limit: N2)."""

from __future__ import annotations

from bittern.core.endpoint import Endpoint
from bittern.dht.limits import MAX_SUSPECTS, SUSPICION_LIFETIME
from bittern.dht.vetting import Vetting

ONE = (b"1" * 20, Endpoint("1.1.1.1", 1))
TWO = (b"2" * 20, Endpoint("2.2.2.2", 2))


def test_every_node_is_taken_once() -> None:
    vetting = Vetting()
    assert vetting.take_untested() is None
    vetting.note_entry(*ONE)
    vetting.note_entry(*TWO)
    assert "2 to examine" in repr(vetting)
    assert vetting.take_untested() == ONE
    vetting.note_exit(TWO[1])
    assert vetting.take_untested() is None


def test_whose_claim_is_known_needs_no_examination() -> None:
    vetting = Vetting()
    vetting.note_entry(*ONE)
    vetting.note_claim(*ONE, 70)
    assert vetting.take_untested() is None


def test_who_claimed_what_is_no_longer_credible_is_examined_again() -> None:
    vetting = Vetting()
    vetting.note_claim(*ONE, 70)
    vetting.note_claim(*TWO, 700)
    vetting.retest(lambda size: size >= 70)
    assert vetting.take_untested() is None
    vetting.retest(lambda size: size > 70)
    assert vetting.take_untested() == ONE
    vetting.note_exit(ONE[1])
    vetting.retest(lambda size: size > 70)
    assert vetting.take_untested() is None


def test_lies_are_forgiven_in_time() -> None:
    vetting = Vetting()
    vetting.suspect(b"one", now=0.0)
    vetting.suspect(b"two", now=1.0)
    vetting.suspect(b"one", now=2.0)  # again, so the later one counts
    vetting.forgive(now=SUSPICION_LIFETIME)
    assert list(vetting.suspects) == [b"two", b"one"]
    vetting.forgive(now=SUSPICION_LIFETIME + 1)
    assert list(vetting.suspects) == [b"one"]
    vetting.forgive(now=SUSPICION_LIFETIME + 9)
    assert not vetting.suspects


def test_memory_of_liars_is_bounded() -> None:
    vetting = Vetting()
    for number in range(MAX_SUSPECTS + 10):
        vetting.suspect(b"%d" % number, now=0.0)
    assert len(vetting.suspects) == MAX_SUSPECTS
    assert b"9" not in vetting.suspects
    assert b"10" in vetting.suspects

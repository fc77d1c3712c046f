"""engine.source_status: the words in which a source says how it stands."""

from __future__ import annotations

from bittern.engine.source_status import SourceKind
from bittern.policy.candidates import Source


def test_every_kind_that_names_candidates_has_the_name_by_which_they_are_labelled() -> None:
    names = {kind.value for kind in SourceKind}
    assert {source.value for source in Source} - names == {"resume"}

"""The seams: small, and met by what claims to meet them."""

from __future__ import annotations

import inspect

import pytest

from keepmap import protocols
from keepmap.protocols import ArraySink, ArraySource, LabelMap, Progress, Runtime, Silent, Tracker

SEAMS = {ArraySource: 7, ArraySink: 1, LabelMap: 1, Tracker: 2, Progress: 2, Runtime: 16}
"""Seam -> the members that it may have: each is one more for every implementation."""


def test_silent_is_a_progress_and_its_own_tracker(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silent()
    progress.say("not shown")
    with progress.track("train", 10, "steps") as tracker:
        tracker.advance()
        tracker.advance(0.5, loss=0.1, phase="warm-up")
        tracker.resize(7)
        with progress.track("validate", 2, "images") as inner:
            inner.advance()
    assert capsys.readouterr() == ("", "")


def test_silent_lets_errors_through() -> None:
    with pytest.raises(ZeroDivisionError), Silent().track("train", 1, "steps"):
        _ = 1 / 0


@pytest.mark.parametrize("seam", SEAMS, ids=lambda seam: seam.__name__)
def test_a_seam_grows_knowingly_and_each_member_is_explained(seam: type) -> None:
    members = {name: value for name, value in vars(seam).items() if not name.startswith("_")}
    assert len(members) == SEAMS[seam]
    assert all(inspect.getdoc(value) for value in members.values())


@pytest.mark.parametrize("seam", [Progress, Tracker], ids=lambda seam: seam.__name__)
def test_silent_has_the_signatures_of_its_seams(seam: type) -> None:
    for name, value in vars(seam).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            promised = list(inspect.signature(value).parameters.values())
            kept = list(inspect.signature(getattr(Silent, name)).parameters.values())
            assert [(p.name, p.kind, p.default) for p in kept] == [(p.name, p.kind, p.default) for p in promised]


def test_every_seam_is_listed_here() -> None:
    found = [
        c for c in vars(protocols).values() if getattr(c, "_is_protocol", False) and c.__module__ == protocols.__name__
    ]
    assert set(found) == set(SEAMS)

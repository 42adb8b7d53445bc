"""A ticket counts, and ends what was cancelled at its next step."""

from __future__ import annotations

import pytest

from keepmap.runtime.stopping import Cancelled
from keepmap.serving.tickets import Ticket


def test_share() -> None:
    ticket = Ticket()
    assert ticket.share == 0
    ticket.total = 4.0
    ticket.advance(1)
    assert ticket.share == 0.25
    ticket.advance(9)
    assert ticket.share == 1


def test_cancelled_ends_the_next_step() -> None:
    ticket = Ticket()
    ticket.check()
    ticket.cancel()
    with pytest.raises(Cancelled):
        ticket.check()
    with pytest.raises(Cancelled):
        ticket.advance()

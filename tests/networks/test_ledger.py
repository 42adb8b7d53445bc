"""The ledger against bytes that are known: it counts what is made while it is on, once, for as long as it lives."""

from __future__ import annotations

import torch

from keepmap.networks.ledger import Ledger

MIB = 1 << 20


def test_it_counts_what_is_made_and_forgets_what_is_gone() -> None:
    before = torch.ones(MIB // 4)
    with Ledger() as ledger:
        made = before + 1
        assert ledger.now == MIB
        view = made[: MIB // 8].view(2, -1)
        made.mul_(2)
        assert ledger.now == MIB
        more = torch.cat([made, before])
        assert (ledger.now, ledger.peak) == (3 * MIB, 3 * MIB)
        del more
        assert (ledger.now, ledger.peak) == (MIB, 3 * MIB)
        del made
        assert ledger.now == MIB, "a view holds it"
        del view
        assert ledger.now == 0
        before.view(2, -1)
        before.add_(1)
        assert ledger.now == 0

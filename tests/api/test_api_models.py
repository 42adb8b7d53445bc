"""The verbs on networks."""

from __future__ import annotations

import pytest

import keepmap
from keepmap.errors import OptionError


def test_models_are_listed_built_and_described() -> None:
    rows = keepmap.list_models()
    assert {"unet", "fcn", "encoder_unet"} <= {row.name for row in rows}
    network = keepmap.build_model("unet", channels=2, classes=3, widths=(4, 8))
    assert network.config.widths == (4, 8)
    with pytest.raises(OptionError, match="did you mean widths"):
        keepmap.build_model("unet", channels=2, classes=3, width=(4, 8))
    with pytest.raises(OptionError, match="did you mean unet"):
        keepmap.build_model("u_net", channels=2, classes=3)
    levels = keepmap.describe_network("unet", size=(361, 479), widths=(4, 8, 16))
    assert len(levels) == 3

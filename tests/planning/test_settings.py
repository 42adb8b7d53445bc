"""What --set fixes: entries of the plan and options of the network, each with a value that can be."""

from typing import Any

import pytest

from keepmap.errors import OptionError
from keepmap.networks.catalogue import NETWORKS
from keepmap.options import TrainOptions
from keepmap.planning.plan import ENTRIES
from keepmap.planning.settings import asked, counted


def test_each_setting_goes_where_it_belongs() -> None:
    found = asked(TrainOptions(set={"crop": 64, "network": "unet", "widths": (4, 8), "gain": 0, "checkpointing": True}))
    assert found.options == TrainOptions(model="unet", crop=64, checkpointing=True, set={"widths": (4, 8)})
    assert found.fixed == {"gain": 0.0, "checkpointing": True}
    assert found.said == ("crop", "network", "gain", "checkpointing")
    assert asked(TrainOptions(set={"mean": [1, 2], "clipping": None})).fixed == {"mean": (1.0, 2.0), "clipping": None}
    assert asked(TrainOptions()).options == TrainOptions()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("crop", 64.5, "wrong type"),
        ("upright", 1, "wrong type"),
        ("mean", 3.0, "wrong type"),
        ("scale", (2.0, 0.5), "the smaller one first"),
        ("scale", (1.0, 2.0, 3.0), "wrong type"),
        ("gain", 1.5, "0 to 0.99"),
        ("optimiser", "adam", "did you mean adamw"),
        ("memory_format", "chanels_last", "did you mean channels_last"),
        ("clipping", "x", "expected +float"),
        ("rotation", (1.5, 10.0), "0 to 1"),
        ("coarse", (0.5, 0.5), "how far"),
        ("dice", -1.0, "0 to 1e"),
        ("step_seconds", 1.0, "it is measured"),
        ("options", {}, "its value"),
        ("pretrained", True, "--weights"),
        ("memory", 5, "--memory"),
    ],
)
def test_what_cannot_be_fixed_is_said(name: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        asked(TrainOptions(set={name: value}))


def test_nothing_is_given_twice() -> None:
    with pytest.raises(OptionError, match="--crop 64, --set crop=96"):
        asked(TrainOptions(crop=64, set={"crop": 96}))


def test_numbers_of_channels_and_classes_are_counted() -> None:
    counted({"mean": (1.0,), "gain": 0.1, "class_weights": None}, 1, 2)
    with pytest.raises(OptionError, match="such as 124,"):
        counted({"mean": (1.0, 2.0)}, 1, 2)
    with pytest.raises(OptionError, match="number for each class"):
        counted({"class_weights": (1.0,)}, 1, 2)


def test_no_option_of_a_network_hides_behind_an_entry() -> None:
    options = {name for config, _ in NETWORKS.values() for name in config.__dataclass_fields__}
    assert options & ENTRIES.keys() == {"checkpointing"}

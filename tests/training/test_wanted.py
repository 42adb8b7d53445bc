"""What cannot be is refused before the data are looked at; the rest has a length and a device."""

import pytest

from keepmap.errors import OptionError
from keepmap.options import TrainOptions
from keepmap.training.wanted import budget_of, checked


def test_the_length_is_the_time_or_ten_minutes() -> None:
    assert budget_of(TrainOptions()) == 600.0
    assert budget_of(TrainOptions(time="90s")) == 90.0
    with pytest.raises(OptionError, match="at least 11 s"):
        budget_of(TrainOptions(time="9s"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (TrainOptions(seed=-1), "--seed -1 cannot be"),
        (TrainOptions(crop=31), "32 to 8192"),
        (TrainOptions(weights="nowhere.pth"), "is no file"),
    ],
)
def test_what_cannot_be_is_named(options: TrainOptions, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        checked(options)


def test_the_device_is_resolved() -> None:
    assert checked(TrainOptions(device="cpu", model="unet", set={"widths": (4, 8)})) == "cpu"

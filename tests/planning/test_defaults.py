"""The table of defaults names entries of the plan, with values that --set would take too."""

import pytest

from keepmap.options import TrainOptions
from keepmap.planning.defaults import DEFAULTS
from keepmap.planning.settings import asked


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_default_could_be_fixed_as_it_is(name: str) -> None:
    value, reason = DEFAULTS[name]
    assert asked(TrainOptions(set={name: value})).fixed == {name: value}
    assert reason

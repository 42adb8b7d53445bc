"""RUNs of networks as they are, for benchmarks that need no training.

Does not choose networks, weights or labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keepmap
from keepmap.data.labels import LabelSet
from keepmap.networks.catalogue import network_recipe
from keepmap.runs import RunConfig, RunFolder, write_tensors


def save_run(path: Path, network: Any, labels: LabelSet) -> RunFolder:
    """The new RUN `path` of a network of keepmap for images of 3 channels of uint8."""
    name, options = network_recipe(network)
    run = RunFolder(path)
    run.create()
    run.write_config(RunConfig(name, options, 3, "uint8", labels, keepmap.__version__))
    write_tensors(run.model_file, network.state_dict())
    return run

"""RUN folders of tiny networks with random weights, and their graphs, which take seconds: once for all tests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from keepmap.artefacts.graphs import to_graph
from keepmap.config import write_json
from keepmap.data.labels import LabelSet, default_colours
from keepmap.networks.catalogue import build_network
from keepmap.networks.reach import NORMS
from keepmap.runs import FORMAT, RunConfig, RunFolder, write_tensors

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("unet", {"widths": (4, 6, 8)}),
    "encoder_unet": ("encoder_unet", {"encoder": "resnet18", "widths": (16, 12, 8, 6, 4)}),
    "fcn": ("fcn", {"head_width": 8}),
}
LABELS = LabelSet((0, 7, 255), ("sky", "tree", "gr\u00e4s"), None, default_colours(3))
TEMPERATURE = 1.7


@dataclass(frozen=True)
class Exportable:
    """A RUN, its network in eval mode, and the ONNX graph of it."""

    run: RunFolder
    network: Any
    graph: Any


def make(kind: str, folder: Path) -> Exportable:
    """A RUN that was trained on four images that are there, held out one."""
    torch.manual_seed(3)
    name, options = NETWORKS[kind]
    network = build_network(name, channels=3, classes=3, options=options).eval()
    for layer in network.modules():
        if isinstance(layer, NORMS):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    network.set_normalisation([120.0, 110.0, 100.0], [60.0, 65.0, 70.0])
    run = RunFolder(folder / "run")
    run.create()
    options = json.loads(json.dumps(options))
    run.write_config(RunConfig(name, options, 3, "uint8", LABELS, "0.1.0", temperature=TEMPERATURE))
    write_tensors(run.model_file, network.state_dict())
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for stem in "abcde":
        Image.fromarray(random.integers(0, 256, (45, 61, 3), np.uint8)).save(folder / "images" / f"{stem}.png")
        Image.fromarray(random.choice(np.array([0, 7, 255], np.uint8), (45, 61))).save(folder / "masks" / f"{stem}.png")
    split = {
        "images": str(folder / "images"), "masks": str(folder / "masks"), "train": list("abcd"), "validation": ["e"],
        "options": {"frame": None, "max_pixels": 10**8},
    }  # fmt: skip
    write_json(run.split_file, split, format=FORMAT)
    return Exportable(run, network, to_graph(network, 3, TEMPERATURE))


@pytest.fixture(scope="session")
def exportables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exportable]:
    """The RUNs by the names of NETWORKS."""
    pytest.importorskip("onnxscript")
    return {kind: make(kind, tmp_path_factory.mktemp(kind)) for kind in NETWORKS}


@pytest.fixture(autouse=True)
def _two_threads_at_most():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)

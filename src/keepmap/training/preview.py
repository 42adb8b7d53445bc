"""A contact sheet of the crops that a training begins with, as it will draw them.

Decides nothing about crops and writes no other file.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from keepmap.data.labels import LabelSet
from keepmap.data.overlay import contact_sheet
from keepmap.data.sinks import write_picture
from keepmap.errors import OptionError, OutputError
from keepmap.training.batches import Batches

_CROPS = 16
_LONGEST = 22
"""Letters of a name above a crop; of a longer one the end is shown."""


def check_preview(file: Path) -> None:
    """Raise OptionError or OutputError where the picture could not be written after the work."""
    if file.suffix.lower() != ".png":
        raise OptionError(f"--preview {file} is no PNG.", found=file.suffix or "no suffix", expected="FILE.png")
    if file.is_dir():
        raise OutputError(f"{file} is a folder.", expected="--preview FILE.png")


def write_preview(batches: Batches, labels: LabelSet, dtype: str, file: Path) -> None:
    """Draw the first 16 crops, those of the first steps, each beside its classes, into the PNG `file`.

    dtype: of the image files; 8-bit values are shown as they are, others on one scale for all.
    """
    sampler = batches.sampler
    steps = math.ceil(_CROPS / sampler.batch)
    drawn = [batches.draw(step) for step in range(steps)]
    x = np.concatenate([batch[0] for batch in drawn])[:_CROPS]
    y = np.concatenate([batch[1] for batch in drawn])[:_CROPS]
    if dtype == "uint8":
        x = x.round().astype(np.uint8)
    notes = []
    for place in (divmod(n, sampler.batch) for n in range(len(x))):
        stem, wanted = batches.store.facts[sampler.image(*place)].stem, sampler.wanted(*place)
        shown = stem if len(stem) <= _LONGEST else f"...{stem[-_LONGEST:]}"
        notes.append((shown, "" if wanted is None else f"around {labels.names[wanted]}"))
    write_picture(file, contact_sheet(list(x), list(y), notes, labels))

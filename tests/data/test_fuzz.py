"""Mutated files of every format, read in a process of limited memory: an image or a KeepmapError, no crash, no hang.

`KEEPMAP_FUZZ=50` makes fifty times as many mutants.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

MUTANTS = 20 * int(os.environ.get("KEEPMAP_FUZZ", "1"))
SECONDS = 20  # that one file may take
BYTES = 4 << 30
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

READER = """
import logging, resource, signal, sys, traceback
from pathlib import Path
from keepmap.data.images import open_image
from keepmap.data.masks import mask_mode, read_mask
from keepmap.errors import KeepmapError
from keepmap.options import ImageOptions

def image(path, options):
    source = open_image(path, options)
    _, height, width = source.shape
    source.read((slice(height // 2, height // 2 + 1), slice(0, min(width, 9))))
    array = source.read()
    assert array.shape == source.shape and array.dtype == source.dtype, (array.shape, source.shape)

logging.disable()  # tifffile has much to say
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
log = Path(sys.argv[1], "last.txt")
good = refused = 0
failed = []
for path in sorted(Path(sys.argv[1], "mutants").iterdir()):
    for options in (ImageOptions(), ImageOptions(frame=1, max_pixels=10**7)):
        for read in (image, read_mask, mask_mode):
            log.write_text(f"{path.name} {read.__name__} {options}")
            signal.alarm(int(sys.argv[3]))
            try:
                read(path, options)
                good += 1
            except KeepmapError as error:
                assert str(path) in str(error), error
                refused += 1
            except BaseException:
                failed.append(f"{path.name} {read.__name__} {options}\\n{traceback.format_exc(limit=-3)}")
print(good, refused)
sys.exit("\\n".join(failed[:20]) or 0)
"""


def whole_files(folder: Path) -> list[Path]:
    """One small file of each format and layout."""
    random = np.random.default_rng(0)
    rgb, grey = random.integers(0, 256, (24, 30, 3), dtype=np.uint8), random.integers(0, 9, (24, 30), dtype=np.uint8)
    picture, other = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    animated = {"save_all": True, "append_images": [other]}
    for name, options in (
        ("rgb.png", {}), ("anim.png", animated), ("x.jpg", {}), ("lossy.webp", {}), ("less.webp", {"lossless": True}),
        ("anim.webp", animated), ("x.bmp", {}), ("anim.gif", animated), ("palette.tif", {}),
    ):  # fmt: skip
        (picture.quantize(16) if name == "palette.tif" else picture).save(folder / name, **options)
    Image.fromarray(grey).save(folder / "grey.png")
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(rgb.astype(np.uint16) * 9))
    for name, array, options in (
        ("raw.tif", rgb, {"photometric": "rgb"}),
        ("tiles.tif", rgb, {"photometric": "rgb", "compression": "zlib", "tile": (16, 16)}),
        ("lzw.tif", grey, {"compression": "lzw", "predictor": True, "rowsperstrip": 5}),
        ("jpeg.tif", rgb, {"photometric": "rgb", "compression": "jpeg", "tile": (16, 16)}),
        ("big.tif", grey.astype(np.float32), {"bigtiff": True, "compression": "packbits", "byteorder": ">"}),
        ("geo.tif", grey, {"extratags": [(42113, "s", 0, "3", True), (33550, "d", 3, (1.0, 1.0, 0.0), True)]}),
        ("stack.ome.tif", np.stack([grey] * 4).reshape(2, 2, 24, 30), {"ome": True, "metadata": {"axes": "TCYX"}}),
        ("stack.tif", np.stack([grey] * 3), {"imagej": True, "metadata": {"axes": "ZYX"}}),
    ):
        tifffile.imwrite(folder / name, array, **options)
    np.save(folder / "x.npy", rgb.astype(np.int16))
    return sorted(folder.iterdir())


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """One to three of: bytes changed, an integer made extreme, a part cut, doubled or zeroed, the end lost."""
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        place = int(random.integers(0, len(data)) ** (1 if random.random() < 0.5 else 0.7))  # headers more often
        size = int(random.integers(1, 40))
        match random.integers(0, 6):
            case 0:
                data[place] = random.integers(0, 256)
            case 1:
                order = "little" if random.random() < 0.5 else "big"
                data[place : place + 4] = int(random.choice(EXTREMES)).to_bytes(4, order)
            case 2:
                del data[place : place + size]
            case 3:
                data[place:place] = data[place : place + size]
            case 4:
                data[place : place + size] = bytes(len(data[place : place + size]))
            case 5:
                del data[max(place, 1) :]
        data = data or bytearray(1)
    return bytes(data)


def read_all(folder: Path) -> str:
    """Read the mutants in another process and return what it says."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", READER, str(folder), str(BYTES), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    where = (folder / "last.txt").read_text() if (folder / "last.txt").exists() else "before the first file"
    assert done.returncode == 0, f"{done.returncode} at {where}\n{done.stdout}{done.stderr[-9000:]}"
    return done.stdout


def test_mutated_files_are_images_or_refused(tmp_path: Path) -> None:
    for name in ("whole", "mutants"):
        (tmp_path / name).mkdir()
    random = np.random.default_rng(7)
    for path in whole_files(tmp_path / "whole"):
        (tmp_path / "mutants" / path.name).write_bytes(path.read_bytes())
        for number in range(MUTANTS):
            (tmp_path / "mutants" / f"{number}_{path.name}").write_bytes(mutate(path.read_bytes(), random))
    good, refused = map(int, read_all(tmp_path).split())
    assert good > 100
    assert refused > 100


def test_mutated_zarr_folders_are_images_or_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    array = np.random.default_rng(0).integers(0, 9, (2, 24, 30), dtype=np.uint8)
    random = np.random.default_rng(8)
    for number in range(2 * MUTANTS):
        path = tmp_path / "mutants" / f"{number}.zarr"
        zarr.create_array(path, data=array, chunks=(1, 16, 16), zarr_format=2 + number % 2)
        files = sorted(p for p in path.rglob("*") if p.is_file())
        chosen = files[random.integers(len(files))] if number % 3 else path / (".zarray", "zarr.json")[number % 2]
        chosen.write_bytes(mutate(chosen.read_bytes(), random))
    assert min(map(int, read_all(tmp_path).split())) > 5

"""Trains the networks of docs/how-it-works.md, measures them, and writes its pictures, its results and the page.

usage: python docs/scripts/draw_how_it_works.py [--keep FOLDER] [--steps N] [--seeds N]
Some ten minutes of one core's time with bfloat16, more without. With --keep, networks that were trained before are
taken from FOLDER. Fewer steps and seeds are for trying things out: their page would not be the one that is published.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import arithmetic
import experiments
import measures
import page
import pictures
from keepmap.networks.describe import parameters
from keepmap.networks.fcn import FCN
from keepmap.networks.network import Network
from keepmap.networks.unet import UNet
from keepmap.protocols import Array
from keepmap.resources import resolve_precision
from pictures import Maps, Panel

STEPS, FCN_STEPS, SEEDS = 300, 150, 2
WINDOW, PLACES = 112, 48
"""How far around a pixel its influence is measured, in pixels, and at how many places."""
ZOOM = (slice(70, 166), slice(60, 156))
"""The part of the shown image that is enlarged."""
CONTEXT, CUT = 112, 32
"""The part that is compared with the whole begins after CUT + CONTEXT rows, and sees the last CONTEXT of them."""
Results = dict[str, Any]


def scored(network: Network, data: experiments.Data) -> dict[str, float]:
    """What and where, on the unseen images."""
    pairs = (data.unseen.get(index) for index in range(len(data.unseen)))
    return measures.score(((truth, measures.predict(network, image)) for image, truth in pairs), experiments.CLASSES)


def ceiling(data: experiments.Data, stride: int) -> dict[str, float]:
    """The same of the truth itself, handed through a grid of `stride`."""
    truths = [data.unseen.get(index)[1] for index in range(len(data.unseen))]
    pairs = ((truth, measures.through_grid(truth, experiments.CLASSES, stride)) for truth in truths)
    return measures.score(pairs, experiments.CLASSES)


def classifier(network: Network, image: Array) -> tuple[Tensor, float]:
    """What an FCN says of a whole image when its last features are averaged over the places, (K,) shares.

    And how far the average of its score map is from that, at most, relative to the largest score.
    """
    assert isinstance(network, FCN)
    x = network.prepare(torch.from_numpy(np.ascontiguousarray(image))[None])
    with torch.inference_mode():
        features = network.head[:-1](network.encoder(x)[-1])
        score = network.head[-1]
        pooled = score(features.mean((2, 3), keepdim=True))[0, :, 0, 0]
        averaged = score(features).mean((2, 3))[0]
    return pooled.softmax(0), float((pooled - averaged).abs().max() / pooled.abs().max())


def fcn_results(networks: Mapping[str, Network], unet: Network, data: experiments.Data) -> Results:
    """From the score map to the map, and what a coarse grid could hold at best."""
    image, _ = data.shown()
    shares, difference = classifier(networks["fcn32"], image)
    scores = {name: scored(network, data) for name, network in {**networks, "unet": unet}.items()}
    ceilings = {f"at{stride}": ceiling(data, stride) for stride in (32, 16, 8, 4, 2)}
    picture(networks, unet, data, shares)
    return {
        "scores": scores, "ceilings": ceilings, "difference": difference,
        "parameters": {name: parameters(network) / 1e6 for name, network in {**networks, "unet": unet}.items()},
        "reach": {name: network.reach for name, network in networks.items()},
        "dense": arithmetic.dense_layer(),
    }  # fmt: skip


def picture(networks: Mapping[str, Network], unet: Network, data: experiments.Data, shares: Tensor) -> None:
    """pictures/fcn.png."""
    image, truth = data.shown()
    coarse = networks["fcn32"]
    assert isinstance(coarse, FCN)
    with torch.inference_mode():
        scores = coarse.scores(torch.from_numpy(np.ascontiguousarray(image))[None])[0].softmax(0).numpy()
    rows, columns = scores.shape[1:]
    covered = (rows * coarse.score_stride, columns * coarse.score_stride)
    first = [
        Panel(np.moveaxis(image, 0, -1), "image", f"{image.shape[1]}×{image.shape[2]} px, unseen in training"),
        Panel(pictures.coloured(truth), "truth", "smooth cells blue, granular orange"),
        Panel(pictures.blended(scores), "score map", f"{rows}×{columns} places", truth, covered),
    ]
    names = (("FCN-32s", "fcn32"), ("FCN-16s", "fcn16"), ("FCN-8s", "fcn8"))
    notes = ("enlarged 32 times", "with scores at 1/16", "and at 1/8")
    second = [
        Panel(pictures.coloured(measures.predict(networks[name], image)), title, note, truth)
        for (title, name), note in zip(names, notes, strict=True)
    ]
    found = pictures.coloured(measures.predict(unet, image))
    second.append(Panel(found, "U-Net", "skips up to full resolution", truth))
    named = dict(zip(data.labels.names, shares.tolist(), strict=True))
    pictures.from_what_to_where(first, named, second, page.PICTURES / "fcn.png")


def spread(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean, least and most of each number over some runs."""
    return {
        key: {"mean": float(np.mean([run[key] for run in runs])), "low": min(run[key] for run in runs),
              "high": max(run[key] for run in runs)}
        for key in runs[0]
    }  # fmt: skip


def parts_results(parts: Mapping[str, Sequence[Network]], data: experiments.Data) -> Results:
    """What skips and depth are for; pictures/parts.png."""
    image, truth = data.shown()
    titles = {"whole": "whole", "no_skips": "without skips", "shallow": "two levels", "wide": "two levels, wide"}
    whole, enlarged = [], []
    for name, title in titles.items():
        found = measures.predict(parts[name][0], image)
        whole.append(Panel(pictures.coloured(found), title, f"sees {max(parts[name][0].reach)} px far", truth))
        enlarged.append(Panel(pictures.coloured(found[ZOOM]), "", "", truth[ZOOM]))
    pictures.grid([whole, enlarged], page.PICTURES / "parts.png", 2.5)
    rows = {}
    for name, networks in parts.items():
        costs = arithmetic.totals(networks[0], arithmetic.SIDE)
        rows[name] = {**costs, **spread([scored(network, data) for network in networks])}
    return rows


def upsampling_results(networks: Mapping[str, Network], data: experiments.Data) -> Results:
    """The pattern of the grid on a constant image, before and after training; pictures/checkerboard.png."""
    image, _ = data.shown()
    titles = {
        "kernel2": "transposed, kernel 2", "kernel3": "transposed, kernel 3",
        "kernel4": "kernel 4, from bilinear", "bilinear": "bilinear",
    }  # fmt: skip
    rows: Results = {}
    panels: list[list[tuple[str, str, Array]]] = [[], []]
    for name, title in titles.items():
        begun = experiments.unet(data, 0, **experiments.UPSAMPLING.get(name, {})).eval()
        rows[name] = {}
        for line, (when, network) in enumerate((("start", begun), ("end", networks[name]))):
            rows[name][when] = measures.ripple(network, data.cell, image)
            flat = measures.interior(network, data.cell, 24)[1].numpy()
            scale = float(measures.logits(network, image)[1].std())
            note = f"{'trained' if line else 'at the start'}: {rows[name][when]:.1%}"
            panels[line].append(("" if line else title, note, flat / scale))
        rows[name].update(scored(networks[name], data))
    pictures.ripples(panels, page.PICTURES / "checkerboard.png")
    return rows


def influence_results(parts: Mapping[str, Sequence[Network]], data: experiments.Data) -> Results:
    """What a pixel could look at and what it does; pictures/influence.png."""
    images = [data.unseen.get(index)[0] for index in range(len(data.unseen))]
    begun = experiments.unet(data, 0).eval()
    cases = (
        ("start", "five levels, untrained", begun),
        ("whole", "five levels, trained", parts["whole"][0]),
        ("shallow", "two levels, trained", parts["shallow"][0]),
    )
    rows, maps = {}, []
    for name, title, network in cases:
        weights = measures.influence(network, images, WINDOW, PLACES)
        reach = max(network.reach)
        half, most = (measures.radius_holding(weights, share) for share in (0.5, 0.9))
        rows[name] = {"reach": reach, "probed": measures.probed_reach(network), "half": half, "most": most}
        maps.append((title, f"reach {reach} px, nine tenths within {most}", weights, reach, most))
    pictures.influence(maps, page.PICTURES / "influence.png")
    return rows


def match_results(network: Network, data: experiments.Data) -> Results:
    """What each `match` does with the same trained weights on images of odd sides."""
    rows: Results = {}
    variants = {match: experiments.unet(data, 0, match=match).eval() for match in arithmetic.MATCHES}
    pairs = [data.unseen.get(index) for index in range(len(data.unseen))]
    plain = [measures.predict(network, image) for image, _ in pairs]
    for match, variant in variants.items():
        variant.load_state_dict(network.state_dict())
        found = [measures.predict(variant, image) for image, _ in pairs]
        differing = [a != b for a, b in zip(plain, found, strict=True)]
        edge = [np.concatenate([d[-16:].ravel(), d[:-16, -16:].ravel()]) for d in differing]
        wrong = sum(int(d.sum()) for d in differing)
        image = pairs[experiments.SHOWN][0]
        whole, part = measures.logits(variant, image), measures.logits(variant, image[:, CUT:])
        away = (whole[:, CUT + CONTEXT :] - part[:, CONTEXT:]).abs().max()
        rows[match] = {
            "differing": wrong / sum(d.size for d in differing),
            "at_edge": sum(int(e.sum()) for e in edge) / max(1, wrong),
            "part": float(away / whole.abs().max()),
        }
    return rows


def draw_letter_u(network: Network, data: experiments.Data) -> None:
    """pictures/unet.png: the maps of a trained network on the shown image."""
    assert isinstance(network, UNet)
    image, _ = data.shown()
    seen: list[Tensor] = []
    hooks = [merge.register_forward_hook(lambda _module, _inputs, y: seen.append(y)) for merge in network.merge]
    with torch.inference_mode():
        levels = network._contract([network.prepare(torch.from_numpy(np.ascontiguousarray(image))[None])])
        answer = network(torch.from_numpy(np.ascontiguousarray(image))[None])[0].argmax(0).numpy()
    for hook in hooks:
        hook.remove()
    pictures.letter_u(
        np.moveaxis(image, 0, -1), [liveliest(x) for x in levels], [liveliest(x) for x in seen],
        pictures.coloured(answer), page.PICTURES / "unet.png",
    )  # fmt: skip


def liveliest(x: Tensor, count: int = 3) -> Maps:
    """The `count` channels of a map (1, C, h, w) that vary most, each stretched between its 1st and 99th percentile."""
    order = x[0].flatten(1).std(1).argsort(descending=True)[:count]
    values = x[0, order].numpy()
    low, high = np.percentile(values, (1, 99), axis=(1, 2), keepdims=True)
    return Maps(((values - low) / np.maximum(high - low, 1e-9)).clip(0, 1), x.shape[1])


def main() -> None:
    """Train, measure, draw and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="folder for the trained networks")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        data = experiments.draw_data(Path(temporary))
        page.PICTURES.mkdir(exist_ok=True)
        recipe = experiments.Recipe(options.steps)
        coarse = experiments.Recipe(max(1, options.steps * FCN_STEPS // STEPS), crop=128)
        parts = experiments.train_parts(data, folder, recipe, options.seeds)
        whole = parts["whole"][0]
        ways = {"kernel2": whole, **experiments.train_upsampling(data, folder, recipe)}
        fcns = experiments.train_fcns(data, folder, coarse)
        results = {
            "how": {
                "steps": recipe.steps, "batch": recipe.batch, "crop": recipe.crop, "seeds": options.seeds,
                "fcn_steps": coarse.steps, "fcn_crop": coarse.crop,
                "train": len(data.train), "unseen": len(data.unseen),
                "precision": resolve_precision("auto", "cpu"), "torch": torch.__version__.split("+")[0],
            },
            "fcn": fcn_results(fcns, whole, data),
            "parts": parts_results(parts, data),
            "upsampling": upsampling_results(ways, data),
            "influence": influence_results(parts, data),
            "match": match_results(whole, data),
            "message": arithmetic.broken_join(arithmetic.broken(arithmetic.halves(arithmetic.ODD, 5))),
        }  # fmt: skip
        draw_letter_u(whole, data)
        pictures.costs(arithmetic.worked_out()["levels"], page.PICTURES / "costs.png")
    page.write_results(results)
    page.main()


if __name__ == "__main__":
    main()

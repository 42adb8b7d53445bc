"""Writes benchmarks/RESULTS.md from the files in benchmarks/results.

usage: python benchmarks/assemble.py
Measures nothing.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, read_results

HEAD = """# Results

Assembled by `benchmarks/assemble.py` from the files in [results/](results), one per measurement; do not edit. Each
section names the command, the machine and the versions. A claim of speed is a ratio to a peer in the same run.
"""
Result = dict[str, Any]
DRAWS = 2000


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: text to the left in the first column, numbers to the right in the others."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def provenance(results: Sequence[Result]) -> str:
    """How and where a section's numbers were made."""
    machine = results[0]["machine"]
    threads = f"{machine['threads']} threads, {machine['memory_gib']} GiB, {' '.join(machine['flags'])}"
    versions = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items())
    commands = sorted({result["command"] for result in results})
    dates = sorted({result["date"][:10] for result in results})
    revisions = sorted({result["revision"] for result in results})
    return (
        "".join(f"`{command}`\n" for command in commands)
        + f"\n{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {machine['cpu']}, {threads}, {machine['system']}; "
        f"{versions}; revision {', '.join(revisions)}.\n"
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number of fixed digits, n/a for None."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def demo(results: Sequence[Result]) -> str:
    """From a fresh clone to a picture."""
    result = results[0]
    rows = [
        ["`git clone` and `make demo`, installation included", number(result["seconds_from_nothing"], 0)],
        ["`keepmap demo` alone", number(result["seconds_alone"], 0)],
    ]
    output = "\n".join(result["output"])
    return (
        f"## From nothing to a picture\n\n{table(['', 'seconds'], rows)}\n```\n{output}\n```\n\n{provenance(results)}"
    )


def speed(results: Sequence[Result]) -> str:
    """The classic U-Net against the plain loop."""
    result = results[0]
    rows = [
        [f"{what}, {row['unit']}", number(row["keepmap"]), number(row["plain"]), f"{row['ratio']:.2f}"]
        for what, row in (("training", result["training"]), ("inference", result["inference"]))
    ]
    inference, yardstick = result["inference"], result["matrix_product"]
    share = inference["gflop_per_second"] / yardstick[result["precision"]]
    return (
        "## Speed of the classic U-Net (64 to 1024 channels)\n\n"
        + table(["", f"keepmap, {result['precision']}", "plain eager float32", "ratio"], rows)
        + f"\nTraining: batch 4 of 256 x 256. Inference: one image of 512 x 512, {inference['gflop']:.0f} GFLOP, at "
        f"{inference['gflop_per_second']:.0f} GFLOP/s; that is {share:.2f} of the matrix product in the same run "
        f"({', '.join(f'{name} {value:.0f} GFLOP/s' for name, value in yardstick.items())}). "
        f"With the same weights the float32 logits differ by {result['logit_difference']:.1e} of the largest; "
        f"{inference['equal_labels']:.2%} of the labels are equal.\n\n{provenance(results)}"
    )


def ratio(row: Result) -> str:
    """A ratio of medians, and its range over the rounds."""
    return f"{row['ratio']:.2f} ({row['range'][0]:.2f} to {row['range'][1]:.2f})"


def peers(results: Sequence[Result]) -> str:
    """What each network costs, the peers at equal settings, and checkpointing."""
    result = results[0]
    costs = [
        [
            row["network"],
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['multiply_adds'] / 1e9:.0f} G",
            *(f"{row[way]['peak_mib']:.0f} ({row[way]['computed_mib']:.0f})" for way in ("plain", "checkpointing")),
        ]
        for row in result["networks"]
    ]
    rows = [
        [f"{name}, {row['side']} px", ratio(row["forward"]), ratio(row["training"]), f"{row['logit_difference']:.1e}"]
        for name, row in result["peers"].items()
    ]
    defaults = result["defaults"]
    mine = ", ".join(f"{defaults[what]['ratio']:.2f} in {what}" for what in ("training", "inference"))
    again = result["checkpointing"]
    shares = {
        "held from forward to backward": "held_mib",
        "peak": "peak_mib",
        "resident, weights not counted": "resident_mib",
    }
    memory_rows = [
        [what, *(f"{value:.0f}" for value in again[key]), f"{again[key][0] / again[key][1]:.2f}"]
        for what, key in shares.items()
    ]
    return (
        "## The networks, and the same networks as others write them\n\n"
        + table(["network", "parameters", "multiply-adds/Mpx", "training MiB/Mpx", "with checkpointing"], costs)
        + "\nFloat32, activations alone, counted (and computed beforehand). The count holds each weight's gradient "
        "until it is complete: that of fc6, 392 MiB on a small image, is what fcn_vgg16 has more than was computed.\n\n"
        + table(["the peer's time as a multiple of ours", "forward", "training step", "logits differ"], rows)
        + f"\nEqual settings: float32, contiguous, the same weights; ratio of medians (range). With ours at "
        f"its defaults ({result['precision']}) against the plain U-Net: {mine}.\n\n"
        + table(
            [f"classic U-Net, {again['side']} px, {again['precision']}, MiB", "recomputed", "plain", "ratio"],
            memory_rows,
        )
        + f"\nA step with checkpointing takes {ratio(again['time'])} times as long.\n\n{provenance(results)}"
    )


def throughput(results: Sequence[Result]) -> str:
    """The whole training loop against the plain one."""
    result = results[0]
    rows = [
        [
            name,
            number(row["keepmap"], 2),
            number(row["plain"], 2),
            ratio(row),
            f"{row['beside']:.1%}",
            f"{row['gflop_per_second'] / result['matrix_product']:.2f}",
        ]
        for name, row in result["networks"].items()
    ]
    head = ["", f"keepmap, {result['precision']}", "plain eager float32", "ratio", "beside", "of the matrix product"]
    return (
        "## The whole training loop, images per second\n\n"
        + table(head, rows)
        + f"\nBatch {result['batch']} of {result['crop']} x {result['crop']}; drawing and augmenting crops, loss, "
        "optimiser and averaging of the weights on both sides. Beside: the share of keepmap's time that is neither "
        "forward pass nor backward pass nor optimiser. The last column is the arithmetic of a step, three forward "
        f"passes, over its time, as a share of the matrix product.\n\n{provenance(results)}"
    )


def export(results: Sequence[Result]) -> str:
    """Prediction end to end from an export, the eager loop and the bare network."""
    result = results[0]
    names = {
        "predict": f"`keepmap predict`, OpenVINO, {result['precision']}",
        "predict_int8": "`keepmap predict`, OpenVINO, int8",
        "predict_torch": "`keepmap predict`, PyTorch",
        "eager": "eager loop, float32",
        "bare": f"OpenVINO, {result['precision']}, the bare network on arrays",
    }
    middle = {name: float(np.median(seconds)) for name, seconds in result["seconds"].items()}
    rows = [[text, f"{middle[name]:.1f}", f"{middle['eager'] / middle[name]:.2f}"] for name, text in names.items()]
    scores = result["trained"]
    trained = "" if scores is None else (
        f" On a trained network: mean IoU {scores['run']:.4f}, exported {scores['exported']:.4f}, "
        f"int8 {scores['int8']:.4f}."
    )
    return (
        f"## From file to file with the classic U-Net\n\n{result['images']} images of {result['side']} x "
        f"{result['side']} px.\n\n{table(['', 'seconds', 'times as fast as the eager loop'], rows)}\n"
        f"Against the bare network: {result['over_bare']:.2f} of its time. int8 is {result['int8_faster']:.2f} times "
        f"as fast as {result['precision']}. The logits of the export differ by {result['logit_difference']:.1e} of the "
        f"largest in float32.{trained} OpenVINO {result['openvino']}.\n\n{provenance(results)}"
    )


def memory(results: Sequence[Result]) -> str:
    """Peak memory of predict."""
    result = results[0]
    rows = [
        [f"{row['side']} x {row['side']}", row["limit"], f"{row['peak_mib']:.0f}", f"{row['seconds']:.1f}"]
        for row in result["rows"]
    ]
    widths = ", ".join(map(str, result["widths"]))
    return (
        f"## Peak memory of `keepmap predict`\n\nU-Net of widths {widths}; synthetic RGB TIFFs of 8 bits.\n\n"
        + table(["image", "`--memory`", "peak MiB", "seconds"], rows)
        + f"\n{provenance(results)}"
    )


def prediction(results: Sequence[Result]) -> str:
    """Large images beside one pass and MONAI, parts beside the whole, and jobs that were killed."""
    parts = {result["name"].removeprefix("prediction-"): result for result in results}
    large = sorted((row for row in results if "network" in row), key=lambda row: (row["network"], row["side"]))
    lines = ["## Prediction of large images\n"]
    if large:
        rows = [
            [
                f"{row['network']}, {row['side']} px", row["memory"], number(row["keepmap"]["peak_mib"], 0),
                number(row["keepmap"]["seconds"], 0), number(row["per_megapixel_ratio"], 2),
            ]
            for row in large
        ]  # fmt: skip
        head = ["`keepmap predict`", "`--memory`", "peak MiB", "seconds", "seconds per pixel over those of a pass"]
        lines.append(f"{table(head, rows)}\nA pass is of 1024 x 1024 px, in memory; the others read and write files.\n")
    for row in large:
        image = f"{row['network']}, {row['side']} px"
        if whole := row.get("beside_whole"):
            ratio = number(whole["ratio"], 2)
            lines.append(f"* {image}, file to file: bands take {ratio} of the time of one pass over the whole image.")
        if tall := row.get("tall"):
            peak, share = number(tall["peak_mib"], 0), tall["peak_mib"] / row["keepmap"]["peak_mib"]
            lines.append(f"* {image} wide, 4 times as high: peak {peak} MiB, {share:.2f} of that of the square image.")
    lines.append("")
    beside = [
        [
            f"{row['network']}, {row['side']} px, {name}", number(found["peak_mib"], 0), number(found["seconds"], 0),
            f"{found['labels_that_differ']:.1e}", row["float32"]["reference"],
        ]
        for row in large if "float32" in row
        for name, found in (("keepmap", row["float32"]["keepmap"]), ("MONAI", row["float32"]["monai"]))
    ]  # fmt: skip
    if beside:
        head = ["float32", "peak MiB", "seconds", "labels that differ", "from those of"]
        lines.append(
            f"{table(head, beside)}\nMONAI: `sliding_window_inference`, Gaussian, overlap 0.25. Weights are random, so "
            "that classes are close to each other.\n"
        )
    if exact := parts.get("exact"):
        worst = ", ".join(f"{kind} {value:.0e}" for kind, value in exact["largest_difference"].items())
        lines.append(f"* Largest difference to one pass over {exact['draws']} draws, of the largest logit: {worst}.")
    if kills := parts.get("kills"):
        lines.append(
            f"* Killed at random moments of {kills['seconds']:.0f} s and gone on: {kills['same']} of {kills['tries']} "
            f"with the same bytes; {kills['entered_on_the_way']} went on within the image."
        )
    return "\n".join([*lines, f"\n{provenance(results)}"])


def check(results: Sequence[Result]) -> str:
    """Speed and memory of check."""
    result = results[0]
    rows = [
        [what, number(result[name], 0), number(result[f"{name}_cpu_ms"], 1)]
        for what, name in (("`keepmap check`, all cores", "check"), ("plain Pillow decode, one core", "decode"))
    ]
    peaks = ", ".join(f"{peak:.0f} MiB with {count} images" for count, peak in result["peak_mib"].items())
    return (
        f"## Speed of `keepmap check`: {result['ratio']:.2f} times a plain decode\n\n"
        f"{result['images']} drawn pairs of {result['side']} x {result['side']}, PNG.\n\n"
        + table(["", "images per second", "CPU, ms per image"], rows)
        + f"\nPeak memory: {peaks}.\n\n{provenance(results)}"
    )


def damage(results: Sequence[Result]) -> str:
    """What `check --fix` made of damaged data."""
    names = ("pairs", "kept", "pixels", "mask_differs", "image_differs")
    rows = [[row["way"].replace("_", " "), *(str(row[name]) for name in names)] for row in results[0]["rows"]]
    head = ["damage", "pairs", "in the copy", "pixels", "labels that differ", "image pixels that differ"]
    return f"## What `keepmap check --fix` repairs\n\n{table(head, rows)}\n{provenance(results)}"


def planning(results: Sequence[Result]) -> str:
    """Expected against real time."""
    rows = [
        [
            f"{row['task']} `{row['options']}`" if row["options"] else row["task"],
            f"{row['steps']} ({row['planned_steps']})",
            number(row["expected_seconds"], 1),
            number(row["real_seconds"], 1),
            number(row["ratio"], 2),
            f"{row['overrun']:+.1f}",
        ]
        for row in results
    ]
    off = float(np.median([abs(row["ratio"] - 1) for row in results]))
    late = max(row["overrun"] for row in results)
    return (
        "## What a plan expects\n\n"
        + table(["plan", "steps (planned)", "expected s", "real s", "ratio", "beyond `--time`, s"], rows)
        + f"\nThe seconds are those of the steps that were done, validations included. Median error {off:.0%}; the "
        f"latest command ended {late:+.1f} s from its `--time`.\n\n{provenance(results)}"
    )


def survival(results: Sequence[Result]) -> str:
    """What trainings were put through, and how often they survived."""
    rows = [[result["what"], f"{result['tried']}", f"{result['survived']}"] for result in results]
    return f"## Trainings that survive\n\n{table(['', 'tried', 'survived'], rows)}\n{provenance(results)}"


def serving(results: Sequence[Result]) -> str:
    """Speed of the server beside a plain loop, and what it bore."""
    parts = {result["name"].removeprefix("serving-"): result for result in results}
    lines = ["## Served\n"]
    if speed := parts.get("throughput"):
        rate, share = speed["rate"], speed["share"]
        rows = [
            ["the predictor in a plain loop", number(rate["loop"], 1), "1.00", "", "", ""],
            ["with files read and masks written", number(rate["files"], 1), number(share["files"], 2), "", "", ""],
        ]
        for clients, times in speed["latency"].items():
            who = f"{clients} client{'s' if clients != '1' else ''}"
            shown = [number(1000 * seconds, 0) for seconds in times]
            rows.append([who, number(rate[clients], 1), number(share[clients], 2), *shown])
        head = ["", "images per second", "of the loop", "median, ms", "90 %, ms", "99 %, ms"]
        size = f"{speed['side']}x{speed['side']}"
        batches = speed["batches"][size]
        lines.append(f"{table(head, rows)}\nImages of {size}, {speed['precision']}; batches: {batches}.\n")
    if held := parts.get("memory"):
        first, last = (number(held["resident"][place] / 2**20, 0) for place in (0, -1))
        tenth = held["requests"] // 10
        lines.append(f"* Memory: {first} MiB after {tenth} requests, {last} MiB after {held['requests']}.")
    if bad := parts.get("malformed"):
        right, rounds = bad["good_after"]
        lines.append(
            f"* Malformed requests: {bad['tried']} sent, {bad['refused']} answered with a 4xx; "
            f"{right} of {rounds} good ones in between answered as before."
        )
    if many := parts.get("crowd"):
        same = f"{many['same']} of {many['answers']} answers the same bytes"
        lines.append(f"* {many['clients']} clients at once: {same}.")
    if kills := parts.get("killed"):
        lines.append(f"* Kills in the middle of a job: {kills['tried']}; ended right by the next: {kills['right']}.")
    return "\n".join([*lines, f"\n{provenance(results)}"])


def metrics(results: Sequence[Result]) -> str:
    """What scores cost."""
    parts = {r["name"]: r for r in results}
    result = parts["metrics"]
    region, everything, monai = result["region"], result["all"], result["monai"]
    rows = [
        ["region: keepmap", number(1000 * region["ours"], 2), ""],
        ["region: bincount loop", number(1000 * region["plain"], 2), number(region["ratio"], 2)],
        ["region: bincount alone", number(1000 * region["barest"], 2), number(region["ratio_barest"], 2)],
        ["surfaces: keepmap", number(1000 * monai["ours"], 0), ""],
        ["surfaces: MONAI", number(1000 * monai["monai"], 0), number(monai["ratio"], 2)],
        ["all numbers: keepmap", number(1000 * everything["seconds"], 0), ""],
    ]
    peaks = ", ".join(f"{peak:.1f} MiB for {count} pairs" for count, peak in result["peak_mib"].items())
    resident = "".join(
        f" A process that counts and scores {count} pairs holds {after:.0f} MiB at its peak, {before:.0f} MiB before."
        for count, (before, after) in parts.get("metrics-memory", {"resident_mib": {}})["resident_mib"].items()
    )
    return (
        f"## Scores of {everything['pairs']} pairs of {result['side']} x {result['side']} with {result['classes']} "
        f"classes\n\n{table(['', 'ms a pair and core', 'as a multiple of ours'], rows)}"
        f"\nIntervals of all numbers: {everything['intervals_seconds']:.1f} s. Peak of what Python and numpy hold: "
        f"{peaks}.{resident} Largest difference to MONAI's surface numbers: {monai['difference']:.0e}.\n\n"
        f"{provenance(results)}"
    )


def independent(results: Sequence[Result]) -> str:
    """Scores that were computed twice."""
    rows = [
        [
            f"{r['name'].removeprefix('independent-')}: {r['images']} images, {r['classes']} classes",
            str(r["numbers"]), str(r["not_available"]), f"{r['largest_difference']:.1e}", r["of"],
        ]
        for r in results
    ]  # fmt: skip
    head = ["predictions", "numbers", "n/a in both", "largest difference", "of"]
    return (
        "## The same predictions scored by an independent script\n\nEvery headline number, those of every class and "
        "those of every image, from docs/metrics.md with distance transforms and loops. Asked: 1e-9.\n\n"
        f"{table(head, rows)}\n{provenance(results)}"
    )


def score(matrices: np.ndarray[Any, Any], task: str) -> np.ndarray[Any, Any]:
    """Foreground IoU (nuclei) or mean IoU of matrices (..., K, K); a class that is absent from both counts as 0."""
    hits = np.diagonal(matrices, axis1=-2, axis2=-1)
    union = matrices.sum(-1) + matrices.sum(-2) - hits
    iou = hits / np.maximum(union, 1)
    return np.asarray(iou[..., 1] if task == "nuclei" else iou.mean(-1))


def paired_interval(a: Result, b: Result) -> tuple[float, float, float]:
    """Difference of the scores a - b and its 95 % interval, by bootstrap over the test images."""
    first, second = np.array(a["matrices"]), np.array(b["matrices"])
    picks = np.random.default_rng(0).integers(len(first), size=(DRAWS, len(first)))
    drawn = [score(m[p].sum(0), a["task"]) for p in picks for m in (first, second)]
    differences = np.array(drawn[::2]) - np.array(drawn[1::2])
    low, high = np.quantile(differences, (0.025, 0.975))
    return float(score(first.sum(0), a["task"]) - score(second.sum(0), a["task"])), float(low), float(high)


def accuracy(results: Sequence[Result]) -> str:
    """IoU on one data set: one row per arm and seed, then per class, then pairs of keepmap and the plain recipe."""
    task, names = results[0]["task"], results[0]["classes"]
    title = "foreground IoU" if task == "nuclei" else f"mean IoU over {len(names)} classes"
    arm = {id(r): f"{r['arm']}, {r['seconds'] / 60:.0f} min" for r in results}
    label = {id(r): f"{arm[id(r)]}, seed {r['seed']}" for r in results}
    found = {id(r): float(score(np.array(r["matrices"]).sum(0), task)) for r in results}
    rows = [
        [
            label[id(r)],
            number(found[id(r)]),
            number(r["train_seconds"], 0),
            number(r["evaluate_seconds"], 0),
        ]
        for r in results
    ]
    for name in dict.fromkeys(arm.values()):
        several = [found[id(r)] for r in results if arm[id(r)] == name]
        if len(several) > 1:
            rows.append([f"{name}, mean of {len(several)} seeds", number(statistics.fmean(several)), "", ""])
    parts = [f"## {task}: {title}\n", table(["arm", title, "train, s", "evaluate, s"], rows)]
    if task != "nuclei":
        parts.append(table(["arm", *names], [[label[id(r)], *(number(v, 2) for v in r["iou"])] for r in results]))
    pairs = []
    for a, b in itertools.product(results, results):
        alike = (a["seed"], a["seconds"]) == (b["seed"], b["seconds"])
        if a["arm"].startswith("keepmap") and b["arm"].startswith("plain") and alike:
            middle, low, high = paired_interval(a, b)
            pairs.append([f"{a['arm']} - {label[id(b)]}", f"{middle:+.3f}", f"{low:+.3f} to {high:+.3f}"])
    if pairs:
        parts.append(table(["difference", title, "95 % interval over the test images"], pairs))
    parts.append("".join(f"* {label[id(r)]}: `{r['commands'][0]}`; {'; '.join(r['said'])}\n" for r in results))
    parts.append("Seconds of plain-* arms include their evaluation.\n")
    return "\n".join([*parts, provenance(results)])


def ablation(results: Sequence[Result]) -> str:
    """One change at a time beside the base, in equal time."""
    task, names = results[0]["task"], results[0]["classes"]
    title = "foreground IoU" if task == "nuclei" else f"mean IoU over {len(names)} classes"
    base = {result["seed"]: result["score"] for result in results if result["arm"] == "base"}
    rows = [
        [
            f"{r['arm']}, seed {r['seed']}", str(r["steps"]), number(r["score"]),
            f"{r['score'] - base[r['seed']]:+.3f}" if r["seed"] in base else "n/a",
            number(r.get("boundary_f")),
            *(number(value, 2) for value in (r["iou"] if task != "nuclei" else ())),
        ]
        for r in sorted(results, key=lambda r: (r["arm"] != "base", r["arm"], r["seed"]))
    ]  # fmt: skip
    head = ["arm", "steps", title, "beside base", "boundary F", *(names if task != "nuclei" else ())]
    fixed = "".join(f"* {r['arm']}: `{' '.join(r['entries']) or 'nothing'}`\n" for r in results if r["seed"] == 0)
    return "\n".join([f"## {task}: one change of the plan at a time\n", table(head, rows), fixed, provenance(results)])


SECTIONS: dict[str, Callable[[Sequence[Result]], str]] = {
    "demo": demo,
    "accuracy-nuclei": accuracy,
    "accuracy-camvid": accuracy,
    "ablation-nuclei": ablation,
    "ablation-camvid": ablation,
    "speed": speed,
    "throughput": throughput,
    "export": export,
    "prediction": prediction,
    "peers": peers,
    "memory": memory,
    "check": check,
    "damage": damage,
    "planning": planning,
    "survival": survival,
    "serving": serving,
    "metrics": metrics,
    "independent": independent,
}
"""Beginning of the result files' names -> the section made of them, in the order of the page."""


def assemble() -> str:
    """The whole page, of the results that exist."""
    found = {prefix: read_results(prefix) for prefix in SECTIONS}
    return "\n".join([HEAD, *(SECTIONS[prefix](results) for prefix, results in found.items() if results)])


def main(target: Path = RESULTS.parent / "RESULTS.md") -> None:
    """Write RESULTS.md."""
    target.write_text(assemble(), encoding="utf-8")
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main()

"""`keepmap check`: everything that is wrong with a data set, in one report.

Knows the shell's parameters and the layout of the report only; `keepmap.check` does the work.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import keepmap
from keepmap.cli.parameters import JSON_FORMAT, JsonFile, Quiet, require_writable, takes
from keepmap.config import to_dict, write_json
from keepmap.options import CheckOptions

if TYPE_CHECKING:
    from rich.table import Table

    from keepmap.data.scan import DataReport

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_SIZES_SHOWN = 3


@takes(CheckOptions)
def check(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="folder of images")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="folder of masks, same stems")],
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Report everything that is wrong with a data set.

    Exit code 2 if training would fail.
    """
    from keepmap.cli.progress import make_progress

    require_writable(json)
    report = keepmap.check(images, masks, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, _as_json(report), format=JSON_FORMAT)
    _show_report(report)
    if report.failed:
        raise typer.Exit(2)


def _show_report(report: DataReport) -> None:
    from keepmap.cli.terminal import show, show_failure

    for severity, style in _STYLES.items():
        for finding in report.findings:
            if finding.severity == severity:
                show_failure(finding.to_error(), severity, stderr=False, style=style)
    if report.findings:
        show("")
    if report.facts:
        show(f"images  {_images_sentence(report)}", f"sizes   {_sizes_sentence(report)}")
    if report.labels_sentence:
        show(f"labels  {report.labels_sentence}")
    if report.facts:
        show("", _label_table(report))
    show("", f"{_totals(report)}: {'training would fail' if report.failed else 'ready to train'}")


def _totals(report: DataReport) -> str:
    counts: Counter[str] = Counter(finding.severity for finding in report.findings)
    words = [f"{counts[name]} {name}{'' if counts[name] == 1 else 's'}" for name in _STYLES if counts[name]]
    return ", ".join(words) or "nothing wrong"


def _images_sentence(report: DataReport) -> str:
    kinds = Counter(f"{fact.channels} x {fact.dtype}" for fact in report.facts)
    modes = Counter(fact.mask_mode for fact in report.facts)
    masks = ", ".join(f"{mode} ({count})" for mode, count in modes.most_common())
    return f"{len(report.facts)} good pairs, channels {', '.join(kinds)}\nmasks   {masks}"


def _sizes_sentence(report: DataReport) -> str:
    sizes = Counter((fact.height, fact.width) for fact in report.facts)
    shown = [f"{height}x{width} ({count})" for (height, width), count in sizes.most_common(_SIZES_SHOWN)]
    text = ", ".join(shown)
    if len(sizes) > _SIZES_SHOWN:
        heights, widths = zip(*sizes, strict=True)
        text += f" and {len(sizes) - _SIZES_SHOWN} other sizes"
        text += f"\n        heights {min(heights)} to {max(heights)}, widths {min(widths)} to {max(widths)}"
    return text


def _pixels(report: DataReport) -> dict[int, int]:
    """Pixels of each label value in all good masks."""
    pixels: Counter[int] = Counter()
    for fact in report.facts:
        pixels.update(fact.counts)
    return {int(value): int(count) for value, count in sorted(pixels.items())}


def _name(report: DataReport, value: int) -> str:
    labels = report.labels
    if labels is None:
        return ""
    if value == labels.ignore:
        return "ignored"
    return labels.names[labels.values.index(value)] if value in labels.values else ""


def _label_table(report: DataReport) -> Table:
    from rich.text import Text

    from keepmap.cli.tables import make_table
    from keepmap.data.values import is_coloured, value_text
    from keepmap.units import in_thousands

    table = make_table()
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("name", overflow="fold")
    for name in ("pixels", "share", "images"):
        table.add_column(name, justify="right", no_wrap=True)
    pixels = _pixels(report)
    values = sorted({*pixels, *(report.labels.values if report.labels else ())})
    coloured = is_coloured(values)
    for value in values:
        count = pixels.get(value, 0)
        images = sum(value in fact.counts for fact in report.facts)
        share = f"{100 * count / sum(pixels.values()):.2f} %"
        table.add_row(value_text(value, coloured), Text(_name(report, value)), in_thousands(count), share, str(images))
    return table


def _as_json(report: DataReport) -> dict[str, Any]:
    """The report as JSON-ready values: everything on the screen, and one entry per good pair."""
    return {
        "images": str(report.images),
        "masks": str(report.masks),
        "failed": report.failed,
        "findings": [to_dict(finding) for finding in report.findings],
        "labels": None if report.labels is None else to_dict(report.labels),
        "labels_sentence": report.labels_sentence,
        "pixels": {str(value): count for value, count in _pixels(report).items()},
        "pairs": [
            {
                "stem": fact.stem,
                "size": [fact.height, fact.width],
                "channels": fact.channels,
                "dtype": fact.dtype,
                "pixels": {str(value): int(count) for value, count in fact.counts.items()},
            }
            for fact in report.facts
        ],
    }

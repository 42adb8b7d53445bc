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
from keepmap.errors import DataError
from keepmap.options import CheckOptions

if TYPE_CHECKING:
    from rich.table import Table

    from keepmap.data.repair import Repair
    from keepmap.data.scan import DataReport

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_SIZES_SHOWN = 3
_FINDINGS_SHOWN = 3
_LISTS = "--html FILE or --json FILE lists them all"


@takes(CheckOptions)
def check(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="folder of images")],
    masks: Annotated[Path, typer.Argument(metavar="MASKS", help="folder of masks, same stems")],
    json: JsonFile = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Report everything that is wrong with a data set.

    Exit code 2 if training would fail; with --fix, if it would on the repaired copy.
    """
    from keepmap.cli.progress import make_progress

    require_writable(json)
    require_writable(Path(options["html"]) if options["html"] else None, "--html")
    report = keepmap.check(images, masks, **options, progress=make_progress(quiet))
    if json is not None:
        write_json(json, _as_json(report), format=JSON_FORMAT)
    _show_report(report)
    if report.repair is not None and report.repaired is not None:
        _show_repair(report.repair, report.repaired)
    if (report.repaired or report).failed:
        raise typer.Exit(2)


def _show_report(report: DataReport) -> None:
    from keepmap.cli.terminal import show, show_failure
    from keepmap.data.findings import group_findings

    for _, findings in group_findings(report.findings):
        severity = findings[0].severity
        for finding in findings[:_FINDINGS_SHOWN]:
            show_failure(finding.to_error(), severity, stderr=False, style=_STYLES[severity])
        if len(findings) > _FINDINGS_SHOWN:
            others = f"{len(findings) - _FINDINGS_SHOWN} more of this sort."
            show_failure(DataError(others, do=_LISTS), severity, stderr=False, style=_STYLES[severity])
    if report.findings:
        show("")
    if report.facts:
        show(f"images  {_images_sentence(report)}", f"sizes   {_sizes_sentence(report)}")
    if report.labels_sentence:
        show(f"labels  {report.labels_sentence}")
    if report.facts:
        show("", _label_table(report))
    show("", f"{_totals(report)}: {'training would fail' if report.failed else 'ready to train'}")


def _show_repair(repair: Repair, repaired: DataReport) -> None:
    """What --fix did, the most frequent first, and whether the copy can be trained on."""
    from rich.text import Text

    from keepmap.cli.tables import make_table
    from keepmap.cli.terminal import show
    from keepmap.units import in_thousands

    table = make_table()
    for name in ("problem", "done"):
        table.add_column(name, overflow="fold")
    for name in ("files", "pixels"):
        table.add_column(name, justify="right", no_wrap=True)
    for problem, done, files, pixels in repair.summary:
        table.add_row(Text(problem), Text(done), str(files), in_thousands(pixels) if pixels else "")
    if repair.changes:
        show("", table)
    verdict = "training would still fail" if repaired.failed else "ready to train"
    show("", f"{repair.out}: {repair.pairs} pairs, {repair.quarantined} files in the quarantine; {verdict}")
    if repair.classes:
        show(f"The masks have new numbers: keepmap train ... --classes {repair.classes}")
    for finding in repaired.errors[:_FINDINGS_SHOWN]:
        show(f"  {finding.summary}")


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
    pixels, images = report.pixels, report.images_with
    values = sorted({*pixels, *(report.labels.values if report.labels else ())})
    coloured = is_coloured(values)
    for value in values:
        count = pixels.get(value, 0)
        share = f"{100 * count / sum(pixels.values()):.2f} %"
        images_with = str(images.get(value, 0))
        table.add_row(value_text(value, coloured), Text(_name(report, value)), in_thousands(count), share, images_with)
    return table


def _as_json(report: DataReport) -> dict[str, Any]:
    """The report as JSON-ready values: everything on the screen, and one entry per good pair.

    "failed" is of the folders as they are, "repaired" of the copy that --fix wrote, null without.
    """
    return {
        "images": str(report.images),
        "masks": str(report.masks),
        "failed": report.failed,
        "findings": [to_dict(finding) for finding in report.findings],
        "labels": None if report.labels is None else to_dict(report.labels),
        "labels_sentence": report.labels_sentence,
        "pixels": {str(value): count for value, count in report.pixels.items()},
        "images_with": {str(value): count for value, count in report.images_with.items()},
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
        "repair": None if report.repair is None else {**to_dict(report.repair), "out": str(report.repair.out)},
        "repaired": report.repaired and {
            "failed": report.repaired.failed, "findings": [to_dict(finding) for finding in report.repaired.findings],
        },
    }

"""The report on a data set as one HTML page with thumbnails, which needs no other file and no network.

Judges nothing: it shows what the report holds, findings of one sort together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from keepmap.data.findings import Finding, group_findings
from keepmap.data.headers import SUFFIXES
from keepmap.data.scan import DataReport
from keepmap.data.values import is_coloured, value_text
from keepmap.reporting.thumbnails import image_thumbnail, mask_thumbnail

_SHOWN = 30  # findings of one sort with their details; the others by name
_PICTURES = 200  # thumbnails on a page
_IN_ONE = 6
_TEMPLATE = Path(__file__).with_name("data_page.html")
_WORDS = {"error": "Errors", "warning": "Warnings", "note": "Notes"}


@dataclass(frozen=True)
class Picture:
    """A thumbnail and the file that it shows. url: None where nothing could be shown."""

    name: str
    url: str | None


def data_page(report: DataReport) -> str:
    """The page as HTML text. Reads the files that it shows."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["thousands"] = lambda count: f"{count:,}".replace(",", " ")
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    counts: Counter[str] = Counter(finding.severity for finding in report.findings)
    return template.render(
        report=report,
        counts={word: counts[severity] for severity, word in _WORDS.items()},
        labels=list(_label_rows(report)),
        facts=list(_sentences(report)),
        groups=list(_groups(report)),
        shown=_SHOWN,
        repairs=report.repair.summary if report.repair else [],
    )


def _groups(report: DataReport) -> Iterator[dict[str, Any]]:
    """Findings of one sort: their title, the first with pictures, the others."""
    left = _PICTURES
    for title, findings in group_findings(report.findings):
        rows = []
        for finding in findings[:_SHOWN]:
            pictures = [_picture(report, Path(file)) for file in _files(finding)[: min(_IN_ONE, left)]]
            left -= len(pictures)
            rows.append({"finding": finding, "pictures": pictures, "name": _short(report, finding.file)})
        rest = [_short(report, finding.file) for finding in findings[_SHOWN:]]
        yield {"title": title, "severity": findings[0].severity, "count": len(findings), "rows": rows, "rest": rest}


def _files(finding: Finding) -> list[str]:
    return [file for file in (finding.file, *finding.others) if Path(file).suffix.lower() in SUFFIXES]


def _picture(report: DataReport, path: Path) -> Picture:
    in_masks = path.is_relative_to(report.masks) and not (
        report.images.is_relative_to(report.masks) and path.is_relative_to(report.images)
    )
    url = None
    if path.is_file():
        url = mask_thumbnail(path, report.labels) if in_masks else image_thumbnail(path)
    return Picture(_short(report, str(path)), url)


def _short(report: DataReport, file: str) -> str:
    """A file's path below the folder that holds both images and masks."""
    path = Path(file)
    for folder in (report.images, report.masks):
        if path.is_relative_to(folder):
            return (Path(folder.name) / path.relative_to(folder)).as_posix()
    return file


def _label_rows(report: DataReport) -> Iterator[dict[str, Any]]:
    """One row for each label value: colour, name, pixels, share, images."""
    labels = report.labels
    pixels, images = report.pixels, report.images_with
    total = max(sum(pixels.values()), 1)
    values = sorted({*pixels, *(labels.values if labels else ())})
    coloured = is_coloured(values)
    for value in values:
        colour, name = "", ""
        if labels and value in labels.values:
            place = labels.values.index(value)
            name, colour = labels.names[place], "#{:02x}{:02x}{:02x}".format(*labels.colours[place])
        elif labels and value == labels.ignore:
            name = "ignored"
        count = pixels.get(value, 0)
        yield {
            "value": value_text(value, coloured), "name": name, "colour": colour, "pixels": count,
            "share": 100 * count / total, "images": images.get(value, 0),
        }


def _sentences(report: DataReport) -> Iterator[tuple[str, str]]:
    """What the good pairs are like, in pairs of a word and a text."""
    if not report.facts:
        return
    kinds = Counter(f"{fact.channels} × {fact.dtype}" for fact in report.facts)
    modes = Counter(fact.mask_mode for fact in report.facts)
    sizes = Counter((fact.width, fact.height) for fact in report.facts)
    yield "good pairs", f"{len(report.facts)}"
    yield "channels", ", ".join(kinds)
    yield "masks", ", ".join(f"{mode} ({count})" for mode, count in modes.most_common())
    common = ", ".join(f"{width} × {height} ({count})" for (width, height), count in sizes.most_common(3))
    yield "sizes", common + (f" and {len(sizes) - 3} others" if len(sizes) > 3 else "")
    yield "values", f"{min(f.low for f in report.facts):g} to {max(f.high for f in report.facts):g}"

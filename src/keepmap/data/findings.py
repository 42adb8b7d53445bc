"""One thing that was noticed about a data set: a file, what is wrong with it, and what to do.

Does not look for anything itself; `scan` and `pairing` collect findings, `check` shows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from keepmap.errors import DataError, KeepmapError

Severity = Literal["error", "warning", "note"]
_SEVERITIES: tuple[str, ...] = get_args(Severity)


@dataclass(frozen=True)
class Finding:
    """What was found about one file, in the form of `errors.KeepmapError`.

    severity: "error" stops training, "warning" may spoil it, "note" is only said.
    file: the file or folder concerned, as the user would name it. summary: one sentence that names it.
    others: further files that it is about, such as the copies of `file`.
    """

    severity: Severity
    file: str
    summary: str
    found: str = ""
    expected: str = ""
    do: str = ""
    others: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: KeepmapError, file: object, severity: Severity = "error") -> Finding:
        """The finding that says what `error` says about `file`."""
        return cls(severity, str(file), error.summary, error.found, error.expected, error.do)

    def to_error(self) -> DataError:
        """The exception that says the same."""
        return DataError(self.summary, found=self.found, expected=self.expected, do=self.do)

    def __str__(self) -> str:
        """The summary and its details, one a line."""
        return str(self.to_error())


def group_findings(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """Findings that say the same about different files: (what they say, they), the severest first, else in order.

    The same is what agrees but for the file's name and for numbers.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        sentence = finding.summary
        for file in sorted((finding.file, *finding.others), key=len, reverse=True):
            sentence = sentence.replace(file, "…")
        groups.setdefault((finding.severity, re.sub(r"\d+", "n", sentence)), []).append(finding)
    order = sorted(groups.items(), key=lambda item: _SEVERITIES.index(item[0][0]))
    return [(found[0].summary if len(found) == 1 else title, found) for (_, title), found in order]

"""One thing that was noticed about a data set: a file, what is wrong with it, and what to do.

Does not look for anything itself; `scan` and `pairing` collect findings, `check` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from keepmap.errors import DataError, KeepmapError

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What was found about one file, in the form of `errors.KeepmapError`.

    severity: "error" stops training, "warning" may spoil it, "note" is only said.
    file: the file or folder concerned, as the user would name it. summary: one sentence that names it.
    """

    severity: Severity
    file: str
    summary: str
    found: str = ""
    expected: str = ""
    do: str = ""

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

"""Numbers as people read them: bytes, counts and times in units that leave three digits.

Knows neither what is counted nor where it is shown.
"""

from __future__ import annotations


def in_bytes(count: float) -> str:
    """Bytes as "512 B", "1.5 KiB", "31.2 MiB": powers of 1024, three digits."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000 or unit == "GiB":
            break
        count /= 1024
    return f"{_three_digits(count)} {unit}"


def in_thousands(count: float) -> str:
    """A count as "812", "9.41 k", "31.0 M": powers of 1000, three digits."""
    for unit in ("", " k", " M", " G", " T"):
        if count < 999.5 or unit == " T":
            break
        count /= 1000
    return f"{_three_digits(count)}{unit}"


def _three_digits(value: float) -> str:
    if value >= 99.95 or value == int(value):
        return f"{value:.0f}"
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def in_time(seconds: float) -> str:
    """Seconds as "4:07" or "1:02:30"."""
    whole = round(seconds)
    minutes, hours = whole // 60 % 60, whole // 3600
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"

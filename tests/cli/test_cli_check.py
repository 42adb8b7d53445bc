"""`keepmap check` shows all that the report holds, in words and as JSON; exit code 2 where training would fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keepmap
from keepmap.cli.main import main
from keepmap.config import read_json
from keepmap.data.facts import FileFacts
from keepmap.data.findings import Finding
from keepmap.data.labels import LabelSet
from keepmap.data.scan import DataReport

LABELS = LabelSet((0, 255), ("background", "cell [x]"), 128, ((0, 0, 0), (255, 0, 0)))
FINDINGS = (
    Finding("note", "masks", "ids [1] are absent."),
    Finding("error", "a.png", "a[/b].png is empty.", found="0 bytes", expected="an image", do="remove it"),
    Finding("warning", "b.png", "b.png is odd.", do="look at it"),
    Finding("error", "c.png", "c.png is text."),
)


def _facts(stem: str, height: int, width: int, counts: dict[int, int]) -> FileFacts:
    path = Path(f"{stem}.png")
    sums = (0.0,) * 3, (0.0,) * 3
    kind = height, width, 3, "uint8", "palette", height * width
    return FileFacts(stem, path, path, *kind, *sums, 0.0, 255.0, counts, {}, {})


def _report(
    findings: tuple[Finding, ...], facts: tuple[FileFacts, ...], labels: LabelSet | None = LABELS
) -> DataReport:
    sentence = "0 is background, 255 is cell." if labels else ""
    return DataReport(Path("images"), Path("masks"), findings, facts, labels, sentence)


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    def run(report: DataReport, *words: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(keepmap, "check", lambda images, masks, **options: report, raising=False)
        code = main(["check", "images", "masks", *words])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out.splitlines()

    return run


GOOD = (_facts("a", 10, 20, {0: 150, 255: 50}), _facts("b", 30, 10, {0: 250, 128: 50}), _facts("c", 10, 20, {0: 200}))


def test_a_good_data_set(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(_report((), GOOD))
    assert code == 0
    assert lines[:4] == [
        "images  3 good pairs, channels 3 x uint8",
        "masks   palette (3)",
        "sizes   10x20 (2), 30x10 (1)",
        "labels  0 is background, 255 is cell.",
    ]
    rows = [line.split() for line in lines]
    assert ["0", "background", "600", "85.71", "%", "3"] in rows
    assert ["128", "ignored", "50", "7.14", "%", "1"] in rows
    assert ["255", "cell", "[x]", "50", "7.14", "%", "1"] in rows
    assert lines[-1] == "nothing wrong: ready to train"


def test_findings_come_by_severity_and_whole(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(_report(FINDINGS, GOOD))
    assert code == 2
    assert lines[:9] == [
        "error: a[/b].png is empty.",
        "  found     0 bytes",
        "  expected  an image",
        "  do        remove it",
        "error: c.png is text.",
        "warning: b.png is odd.",
        "  do        look at it",
        "note: ids [1] are absent.",
        "",
    ]
    assert lines[-1] == "2 errors, 1 warning, 1 note: training would fail"


def test_warnings_alone_do_not_fail(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(_report(FINDINGS[2:3], GOOD))
    assert code == 0
    assert lines[-1] == "1 warning: ready to train"


def test_nothing_good_at_all(check: Callable[..., tuple[int, list[str]]]) -> None:
    code, lines = check(_report(FINDINGS[1:2], (), None))
    assert code == 2
    assert lines[-1] == "1 error: training would fail"
    assert not any("%" in line for line in lines)


def test_values_that_fit_no_rule_are_shown_without_names(check: Callable[..., tuple[int, list[str]]]) -> None:
    _, lines = check(_report(FINDINGS[1:2], GOOD, None))
    assert ["128", "50", "7.14", "%", "1"] in [line.split() for line in lines]


def test_many_sizes_become_a_range(check: Callable[..., tuple[int, list[str]]]) -> None:
    facts = tuple(_facts(str(i), 10 + i, 100 - i, {0: 1}) for i in range(20))
    _, lines = check(_report((), facts))
    assert "and 17 other sizes" in lines[2]
    assert lines[3] == "        heights 10 to 29, widths 81 to 100"


def test_json_holds_the_report(check: Callable[..., tuple[int, list[str]]], tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    code, _ = check(_report(FINDINGS, GOOD), "--json", str(file), "-q")
    report = read_json(file, format=1)
    assert code == 2
    assert report["failed"] is True
    assert [finding["severity"] for finding in report["findings"]] == ["note", "error", "warning", "error"]
    assert report["labels"]["names"] == ["background", "cell [x]"]
    assert report["pixels"] == {"0": 600, "128": 50, "255": 50}
    assert (report["images_with"], report["repaired"]) == ({"0": 3, "128": 1, "255": 1}, None)
    assert report["pairs"][1] == {
        "stem": "b", "size": [30, 10], "channels": 3, "dtype": "uint8", "pixels": {"0": 250, "128": 50}
    }  # fmt: skip


def _write(folder: Path, name: str, array: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(array).save(folder / name)


def test_real_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.zeros((12, 9), np.uint8)
    mask[3:6] = 255
    for seed, name in enumerate(("a.png", "b.png")):
        image = np.random.default_rng(seed).integers(0, 256, (12, 9, 3), np.uint8)
        _write(tmp_path / "images", name, image)
        _write(tmp_path / "masks", name, mask)
    words = ["check", str(tmp_path / "images"), str(tmp_path / "masks")]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "2 good pairs" in out
    assert "12x9 (2)" in out
    assert "25.00 %" in out
    (tmp_path / "images" / "c[x].png").write_text("hello")
    _write(tmp_path / "masks", "c[x].png", mask)
    assert main(words) == 2
    out = capsys.readouterr().out
    assert "c[x].png" in out
    assert out.splitlines()[-1] == "1 error: training would fail"


def test_missing_folder_is_wrong_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "no"), str(tmp_path)]) == 2
    assert str(tmp_path / "no") in "".join(capsys.readouterr())


def test_many_findings_of_one_sort_are_counted(check: Callable[..., tuple[int, list[str]]]) -> None:
    findings = tuple(Finding("error", f"{n}.png", f"{n}.png is an empty file.") for n in range(200))
    _, lines = check(_report(findings, GOOD))
    assert lines[:5] == [
        "error: 0.png is an empty file.",
        "error: 1.png is an empty file.",
        "error: 2.png is an empty file.",
        "error: 197 more of this sort.",
        "  do        --html FILE or --json FILE lists them all",
    ]
    assert lines[-1] == "200 errors: training would fail"


def test_fix_and_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png", "c.png"):
        _write(tmp_path / "images", name, random.integers(0, 256, (12, 9, 3), np.uint8))
        _write(tmp_path / "masks", name, np.eye(12, 9, dtype=np.uint8) * 255)
    (tmp_path / "images" / "c.png").write_bytes(b"")
    words = ["check", str(tmp_path / "images"), str(tmp_path / "masks"), "--fix", str(tmp_path / "out")]
    assert main([*words, "--html", str(tmp_path / "page.html"), "--json", str(tmp_path / "report.json")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "1 error: training would fail" in out
    assert out[-1].endswith("out: 2 pairs, 2 files in the quarantine; ready to train")
    report = read_json(tmp_path / "report.json", format=1)
    assert report["repair"]["pairs"] == 2
    assert (report["failed"], report["repaired"]["failed"]) == (True, False)
    assert (tmp_path / "page.html").stat().st_size > 1000
    assert main(words) == 2
    assert "exists already." in capsys.readouterr().err
    assert main([*words[:3], "--html", str(tmp_path / "absent" / "page.html")]) == 2
    assert "no folder" in capsys.readouterr().err

"""The door: help, exit codes, failures without tracebacks, signals, and nothing heavy before it is needed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import keepmap
from keepmap.cli.main import COMMANDS, main
from keepmap.errors import DataError, Interrupted, KeepmapError, RunError, TrainingError

HEAVY = ("torch", "lightning_fabric", "matplotlib", "scipy", "tifffile", "PIL", "numpy", "keepmap.api")
NAMES = [command.__name__.replace("_", "-") for command in COMMANDS]


def _fail_with(error: BaseException) -> Callable[..., NoReturn]:
    def verb(*arguments: Any, **options: Any) -> NoReturn:
        raise error

    return verb


def _python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["--version"], ["trian"], ["train", "--modle"]], ids=" ".join
)
def test_nothing_heavy_is_loaded_before_a_command_runs(words: list[str]) -> None:
    code = (
        f"import sys; from keepmap.cli.main import main; main({words}); print([m for m in {HEAVY} if m in sys.modules])"
    )
    assert _python(code).stdout.splitlines()[-1] == "[]"


def test_help_is_there_within_a_second() -> None:
    """The best of three, for other processes may hold the machine."""
    times = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "keepmap", "--help"], capture_output=True, text=True, check=True)
        times.append(time.monotonic() - start)
    assert min(times) < 1
    assert all(f"\n  {name} " in done.stdout for name in NAMES)


def test_help_needs_no_wide_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words in ([], *([name] for name in NAMES)):
        assert main([*words, "-h"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert not any(line.endswith("...") and not line.startswith("Usage") for line in lines), "a help text is cut"


def test_no_command_shows_the_help_and_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"keepmap {keepmap.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "did you mean train?"),
        (["modles", "unet"], "did you mean models?"),
        (["segment"], "one of " + ", ".join(command.__name__.replace("_", "-") for command in COMMANDS)),
        (["--versoin"], "did you mean --version?"),
    ],
)
def test_unknown_command_names_the_nearest(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"  expected  {expected}\n" in err
    assert "keepmap --help" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["check", "images"], "'MASKS'"),
        (["predict", "run", "a.png"], "'--out'"),
        (["predict", "run", "-o", "out"], "'INPUT'"),
        (["train", "--seed"], "'--seed'"),
        (["train", "--seed", "x"], "'--seed'"),
        (["check", "a", "b", "c"], "(c)"),
        (["models", "unet", "--classes", "1"], "'--classes'"),
    ],
)
def test_wrong_arguments_are_named(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("OptionError: ")
    assert named in err.splitlines()[0]
    assert err.endswith("--help\n")


GO_ON = "Interrupted; the masks in out are whole.\n  do        the same command with --resume goes on\n"


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (
            RunError("[x] is no RUN.", found="[/y]", do="train"),
            2,
            "RunError: [x] is no RUN.\n  found     [/y]\n  do        train\n",
        ),
        (DataError("a.png is empty."), 2, "DataError: a.png is empty.\n"),
        (TrainingError("no loss"), 1, "TrainingError: no loss\n"),
        (KeepmapError("failed"), 1, "KeepmapError: failed\n"),
        (Interrupted("Stopped after step 3."), 130, "Stopped after step 3.\n"),
        (Interrupted("Stopped.", signal=15, do="--resume"), 143, "Stopped.\n  do        --resume\n"),
        (KeyboardInterrupt(), 130, GO_ON),
        (SystemExit(143), 143, GO_ON),
    ],
)
def test_failures_are_shown_without_traceback(
    error: BaseException,
    code: int,
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(keepmap, "predict", _fail_with(error), raising=False)
    assert main(["predict", "run", "a.png", "-o", "out"]) == code
    assert capsys.readouterr() == ("", shown)


def test_a_mistake_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepmap, "predict", _fail_with(ZeroDivisionError()), raising=False)
    with pytest.raises(ZeroDivisionError):
        main(["predict", "run", "a.png", "-o", "out"])


def test_sigterm_leaves_through_every_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    left = []

    def verb(*arguments: Any, **options: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            left.append(True)

    monkeypatch.setattr(keepmap, "evaluate", verb, raising=False)
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "run", "images", "masks"])
    assert caught.value.code == 143
    assert left == [True]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_process_that_is_interrupted(number: signal.Signals, code: int) -> None:
    script = (
        "import sys, time, keepmap\n"
        "from keepmap.cli.main import COMMANDS, main\n"
        "keepmap.predict = lambda *a, **o: (print('ready', flush=True), time.sleep(60))\n"
        "sys.exit(main(['predict', 'run', 'a.png', '-o', 'out']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in err


def test_a_file_name_that_is_no_text_can_be_shown() -> None:
    script = (
        "import sys, keepmap\n"
        "from keepmap.cli.main import COMMANDS, main\n"
        "keepmap.predict = lambda *a, progress, **o: progress.say(sys.argv[1]) or []\n"
        "sys.exit(main(['predict', 'run', 'a.png', '-o', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", script, b"\xff.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "\\udcff.png\n0 masks in \\udcff.png\n"

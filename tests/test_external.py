"""Optional packages: looked for without importing, refused with the line that installs them."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from keepmap import external
from keepmap.errors import MissingPackage


def test_available_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loud_package.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert external.available("loud_package")
    assert "loud_package" not in sys.modules


def test_a_package_that_is_not_there() -> None:
    assert not external.available("no_such_package_at_all")


def test_load_returns_the_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quiet_package.py").write_text("ANSWER = 42")
    monkeypatch.syspath_prepend(tmp_path)
    assert external.load("quiet_package", "The test").ANSWER == 42


@pytest.mark.parametrize("name", external.PACKAGES)
def test_missing_package_comes_with_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "available", lambda name: False)
    with pytest.raises(MissingPackage, match="The report needs the package") as caught:
        external.load(name, "The report")
    assert caught.value.do == external.install_line(name)
    assert caught.value.exit_code == 2


def test_every_package_is_in_an_extra_and_not_among_what_is_always_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    offered = " ".join(line for lines in project["optional-dependencies"].values() for line in lines)
    for distribution in external.PACKAGES.values():
        assert distribution in offered
        assert distribution not in " ".join(project["dependencies"])

"""The public list: what `keepmap` offers is what `keepmap.api` defines, in the shapes that users rely on."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

import keepmap
import keepmap.api
from keepmap import options

API = Path(keepmap.__file__).with_name("api")
OPTIONS_OF = {
    "check": options.CheckOptions,
    "convert": options.ConvertOptions,
    "plan": options.TrainOptions,
    "train": options.TrainOptions,
    "evaluate": options.EvaluateOptions,
    "compare": options.CompareOptions,
    "predict": options.PredictOptions,
    "demo": options.DemoOptions,
    "import_weights": options.ImportOptions,
    "export": options.ExportOptions,
    "bench": options.BenchOptions,
    "load": options.ComputeOptions,
    "serve": options.ServeOptions,
}


def test_list_is_what_the_api_defines() -> None:
    """Public functions in api/, and no other public function there."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in API.glob("*.py")]
    own = [n.name for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef)]
    assert sorted(name for name in own if not name.startswith("_")) == keepmap.__all__ == keepmap.api.__all__
    assert keepmap.__all__ == sorted(keepmap.__all__)


@pytest.mark.parametrize("name", keepmap.__all__)
def test_name_resolves_and_says_what_it_does(name: str) -> None:
    assert name in dir(keepmap)
    assert inspect.getdoc(getattr(keepmap, name))


@pytest.mark.parametrize("name", OPTIONS_OF)
def test_verb_takes_the_options_of_its_dataclass_by_keyword(name: str) -> None:
    parameters = inspect.signature(getattr(keepmap, name)).parameters
    for field in dataclasses.fields(OPTIONS_OF[name]):
        assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY, field.name
        assert parameters[field.name].default == field.default, field.name


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = keepmap.trian


def test_star_import_gives_the_list() -> None:
    space: dict[str, object] = {}
    exec("from keepmap import *", space)
    assert set(keepmap.__all__) == set(space) - {"__builtins__"}

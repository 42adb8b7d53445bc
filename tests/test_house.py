"""The rules of the house, read off the syntax trees of the package and the list of files."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import keepmap
from keepmap import options

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "keepmap"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if not path.name.startswith("__")]

ORDER = (
    ("errors",),
    ("config", "protocols", "external", "units"),
    ("options", "resources"),
    ("geometry",),
    ("data", "networks", "metrics"),
    ("planning", "runtime", "runs"),
    ("inference", "weights"),
    ("training", "evaluation", "artefacts"),
    ("reporting", "serving"),
    ("api",),
    ("cli",),
)
"""A line may import the lines above it; names on one line do not import each other. The same stands in the docs."""

FILE_LINES, FUNCTION_LINES, PARAMETERS = 400, 50, 8
RANK_BOUND = {"Conv2d", "ConvTranspose2d", "MaxPool2d", "BatchNorm2d"}
"""Layers of two spatial axes: only the tables of networks/layers.py and norms.py may name them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def _part(path: Path) -> str:
    """The folder or top-level module that a file belongs to; "" for the doors: the package's __init__ and __main__."""
    first = path.relative_to(PACKAGE).parts[0]
    return "" if first.startswith("__") else first.removesuffix(".py")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _line(part: str) -> int:
    return next(number for number, names in enumerate(ORDER) if part in names)


def imported_parts(tree: ast.AST) -> set[str]:
    """Parts of the package that a syntax tree imports anywhere; the verbs of `keepmap` itself count as api."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            prefix = node.module or ""
            names |= {f"{prefix}.{alias.name}" if prefix == "keepmap" else prefix for alias in node.names}
    parts = {name.split(".")[1] if "." in name else "api" for name in names if name.split(".")[0] == "keepmap"}
    return {"api" if part in keepmap.__all__ else part for part in parts} - {"__version__"}


def misplaced(part: str, tree: ast.AST) -> set[str]:
    """What a file of `part` imports against the order."""
    return {other for other in imported_parts(tree) if other != part and _line(other) >= _line(part)}


def too_long(tree: ast.AST, exempt: frozenset[str] = frozenset()) -> list[str]:
    """Names of functions over the line budget; of an exempt one the signature does not count."""
    found = []
    for function in _functions(tree):
        first = function.body[0].lineno if function.name in exempt else function.lineno
        if (function.end_lineno or 0) - first + 1 > FUNCTION_LINES:
            found.append(function.name)
    return found


def too_many_parameters(tree: ast.AST, exempt: frozenset[str] = frozenset()) -> list[str]:
    """Names of functions over the parameter budget, self and cls not counted."""
    found = []
    for function in _functions(tree):
        a = function.args
        names = [argument.arg for argument in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
        own = names[1:] if names[:1] in (["self"], ["cls"]) else names
        if len(own) + bool(a.vararg) + bool(a.kwarg) > PARAMETERS and function.name not in exempt:
            found.append(function.name)
    return found


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods of public classes without a docstring."""
    found = []
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            members = node.body if isinstance(node, ast.ClassDef) else []
            public = [m for m in members if isinstance(m, Function) and not m.name.startswith("_")]
            found += [item.name for item in (node, *public) if not ast.get_docstring(item)]
    return found


def names_used(tree: ast.AST) -> set[str]:
    """Every plain name and attribute that occurs."""
    plain = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return plain | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def unsafe(tree: ast.AST) -> list[str]:
    """Ways to run code from a file: pickle, and torch.load without weights_only=True."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
            found += sorted(names & {"pickle", "joblib", "dill", "shelve"})
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            safe = "weights_only=True" in [ast.unparse(keyword) for keyword in node.keywords]
            found += [] if safe else ["torch.load"]
    return found


def tracked_files() -> list[Path]:
    """What git keeps or would keep, of the files that still exist."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs the git repository")
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def _tracked_lines() -> Iterator[tuple[str, str]]:
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            yield f"{path.relative_to(ROOT)}:{number}", line


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# The import order.


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_one_way(path: Path) -> None:
    if part := _part(path):
        assert not misplaced(part, _tree(path))


def test_every_part_has_its_place_in_the_order() -> None:
    declared = [name for names in ORDER for name in names]
    assert {_part(path) for path in FILES} - {""} <= set(declared)
    assert len(declared) == len(set(declared))


def test_order_is_the_documented_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL) if b.startswith("errors"))
    documented = [re.split(r"\s{2,}", line)[0].split(", ") for line in block.splitlines()]
    assert tuple(tuple(names) for names in documented) == ORDER


def test_no_part_bears_the_name_of_a_public_function() -> None:
    assert not {_part(path) for path in FILES} & set(keepmap.__all__)


def test_only_external_imports_by_name() -> None:
    users = {_name(path) for path in FILES if "import_module" in names_used(_tree(path))}
    assert users == {"external.py"}


# Budgets and words that have one place.


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_budgets(path: Path) -> None:
    tree = _tree(path)
    exempt = frozenset(keepmap.__all__) if _part(path) == "api" else frozenset()
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES
    assert not too_long(tree, exempt)
    assert not too_many_parameters(tree, exempt)


def test_print_stays_in_the_command_line() -> None:
    users = {_part(path) for path in FILES if "print" in names_used(_tree(path))}
    assert users <= {"cli"}


def test_rank_bound_layers_stay_in_their_table() -> None:
    users = {_name(path) for path in FILES if names_used(_tree(path)) & RANK_BOUND}
    assert users <= {"networks/layers.py", "networks/norms.py"}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_runs_code_from_a_file(path: Path) -> None:
    assert not unsafe(_tree(path))


# Documentation and tests.


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_says_what_it_knows_and_what_not(path: Path) -> None:
    paragraphs = (ast.get_docstring(_tree(path)) or "").split("\n\n")
    assert len(paragraphs) >= 2, "the docstring needs a first line and a second paragraph"
    assert "\n" not in paragraphs[0], "the first paragraph is one line"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_public_names_are_documented(path: Path) -> None:
    assert not undocumented(_tree(path))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_has_its_test_file(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    folder = ROOT / "tests" / relative.parent
    names = (f"test_{path.name}", f"test_{path.parent.name}_{path.name}")
    assert any((folder / name).exists() for name in names), f"tests/{relative.with_name(names[0])} is missing"


@pytest.mark.parametrize("cls", [c for c in vars(options).values() if dataclasses.is_dataclass(c)], ids=str)
def test_option_says_what_it_does(cls: type) -> None:
    for field in dataclasses.fields(cls):
        assert field.metadata.get("help"), field.name
        assert field.default is not dataclasses.MISSING, field.name


# What lies in the repository.


def test_no_file_holds_a_path_of_one_machine() -> None:
    roots = "|".join(("home", "root", "work", "tmp", "Users", "mnt", "opt"))
    pattern = re.compile(rf"(?<![\w.~<>)])/(?:{roots})/\w|[A-Z]:\\\\?Users")
    assert not [where for where, line in _tracked_lines() if pattern.search(line)]


def test_nothing_is_left_for_later() -> None:
    pattern = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    assert not [where for where, line in _tracked_lines() if pattern.search(line)]


def test_no_large_file() -> None:
    assert not [path for path in tracked_files() if path.stat().st_size > 500_000]


# Importing is cheap.


def test_import_loads_neither_torch_nor_numpy_and_touches_nothing() -> None:
    code = (
        "import sys, warnings; before = list(warnings.filters); import keepmap; dir(keepmap);"
        "print(sorted({'torch', 'numpy', 'PIL', 'lightning_fabric', 'matplotlib'} & set(sys.modules)),"
        " before == warnings.filters)"
    )
    assert run_python(code) == "[] True"


def test_help_loads_no_torch() -> None:
    code = (
        "import contextlib, io, sys; sys.argv = ['keepmap', '--help']\n"
        "from keepmap.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "print(sorted({'torch', 'lightning_fabric', 'matplotlib'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_what_decodes_for_strangers_loads_no_torch() -> None:
    assert run_python("import sys, keepmap.serving.decoder; print('torch' in sys.modules)") == "False"


# The rules see what they are made to see.


@pytest.mark.parametrize(
    ("part", "code", "found"),
    [
        ("data", "from keepmap.networks.unet import UNet", {"networks"}),
        ("data", "def f():\n    import keepmap.api", {"api"}),
        ("networks", "from keepmap import train", {"api"}),
        ("networks", "import keepmap", {"api"}),
        ("metrics", "if TYPE_CHECKING:\n    from keepmap import data", {"data"}),
        ("runs", "from keepmap import __version__\nfrom keepmap.data.labels import LabelSet", set()),
        ("data", "from keepmap.data.images import open_image\nimport numpy", set()),
    ],
)
def test_order_sees(part: str, code: str, found: set[str]) -> None:
    assert misplaced(part, ast.parse(code)) == found


def test_budgets_see() -> None:
    many = ", ".join(f"a{n}" for n in range(PARAMETERS + 1))
    assert too_many_parameters(ast.parse(f"def f({many}): ...")) == ["f"]
    assert too_many_parameters(ast.parse(f"class A:\n    def g(self, {many[:-4]}): ...")) == []
    assert too_many_parameters(ast.parse(f"def f({many}): ..."), frozenset({"f"})) == []
    assert too_long(ast.parse("def f():\n" + "    x = 1\n" * FUNCTION_LINES)) == ["f"]
    assert undocumented(ast.parse("class A:\n    'a'\n    def b(self): ...\n    def _c(self): ...")) == ["b"]
    loads = ast.parse("import pickle\ntorch.load(f)\ntorch.load(f, weights_only=True)")
    assert unsafe(loads) == ["pickle", "torch.load"]

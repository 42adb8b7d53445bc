"""The file of classes: names alone, and tables of ids or colours, told apart by what is in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from keepmap.data.classes import ClassNames, read_classes
from keepmap.data.values import COLOUR
from keepmap.errors import OptionError


def test_class_names_are_read_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffsky\r\n traffic sign \r\nBäume\r\n\r\n".encode())
    assert read_classes(path) == ClassNames(("sky", "traffic sign", "Bäume"))


@pytest.mark.parametrize(
    ("text", "found"), [("a\nb\na", "a twice"), ("a\n\nb", "an empty line"), ("a", "1 names"), ("", "0 names")]
)
def test_a_bad_list_of_names_is_refused(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(OptionError, match=rf"(?s)names\.txt is no list of class names.*{found}"):
        read_classes(tmp_path / "names.txt")


def test_names_that_cannot_be_read_are_an_option_error(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    for name in ("absent.txt", "image.png"):
        with pytest.raises(OptionError, match=rf"The class names in .*{name} cannot be read"):
            read_classes(tmp_path / name)


@pytest.mark.parametrize("header", ["", "name,r,g,b\n", "class, red, green, blue\n"])
def test_a_table_of_colours(tmp_path: Path, header: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(f'{header}void, 0,0,0\n"road, paved",128, 64,128\n')
    assert read_classes(path) == ClassNames(("void", "road, paved"), (0, COLOUR + 0x804080))


def test_a_table_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("name,id\nroad,7\ncar,26\n")
    assert read_classes(path) == ClassNames(("road", "car"), (7, 26))


def test_names_with_commas_are_names(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("road, paved\ncar\n")
    assert read_classes(path).names == ("road, paved", "car")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,0,0,0\nb,256,0,0\nc,1,2,3\n", "Line 2 of .* does not fit"),
        ("a,0,0,0\nb,1,2,3\nc,0,0,0\n", "gives rgb 0,0,0 to two classes"),
        ("a,0\nb,0\n", "gives 0 to two classes"),
        ("a,0\nb,1,2,3\n", "Line 1 of .* does not fit"),
        ("a,0,0,0\na,1,2,3\n", "a twice"),
        ("a,0,0,0\n", "1 names"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(OptionError, match=rf"(?s){message}"):
        read_classes(path)

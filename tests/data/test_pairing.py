"""Files find their partners by relative stem, and whatever stays alone is named."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepmap.data.findings import Finding
from keepmap.data.pairing import list_images, match_folders, relative_stem
from keepmap.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    folder.mkdir(exist_ok=True)
    return folder


def pair(tmp_path: Path, images: str, masks: str) -> tuple[list[tuple[str, str, str]], list[Finding]]:
    """The pairs as (stem, image, mask) with paths relative to the two folders, and the findings."""
    first, second = touch(tmp_path / "images", *images.split()), touch(tmp_path / "masks", *masks.split())
    found = match_folders(first, second)
    return [
        (p.stem, p.image.relative_to(first).as_posix(), p.mask.relative_to(second).as_posix()) for p in found.pairs
    ], found.findings


def test_suffixes_and_endings_and_folders(tmp_path: Path) -> None:
    pairs, findings = pair(tmp_path, "a.jpg b.png s/b.TIF c_mask.png", "a.png b_mask.png s/b_label.tif c_mask.png")
    assert pairs == [
        ("a", "a.jpg", "a.png"),
        ("b", "b.png", "b_mask.png"),
        ("c_mask", "c_mask.png", "c_mask.png"),
        ("s/b", "s/b.TIF", "s/b_label.tif"),
    ]
    assert not findings


@given(st.sets(st.sampled_from("abcdefgh"), min_size=1), st.sets(st.sampled_from("abcdefgh"), min_size=1))
@settings(max_examples=25, deadline=None)
def test_every_file_is_paired_or_named(
    tmp_path_factory: pytest.TempPathFactory, images: set[str], masks: set[str]
) -> None:
    names = " ".join(f"{n}.png" for n in images), " ".join(f"{n}_mask.png" for n in masks)
    pairs, findings = pair(tmp_path_factory.mktemp("pairs"), *names)
    assert [stem for stem, _, _ in pairs] == sorted(images & masks)
    assert len(findings) == len(images ^ masks)
    assert all(finding.severity == "error" for finding in findings)


def test_lone_files_are_named(tmp_path: Path) -> None:
    _, findings = pair(tmp_path, "a.png b.png", "b.png c.png")
    lone_mask, lone_image = (str(finding) for finding in findings)
    assert "c.png: this mask has no image." in lone_mask
    assert "a.png: this image has no mask." in lone_image
    assert "a.png or a_mask.png" in lone_image


@pytest.mark.parametrize(
    ("images", "masks", "what"),
    [("a.png a.jpg", "a.png", "2 images"), ("a.png", "a.png a_mask.png", "2 masks"),
     ("a.png", "a.png a.tif a_label.png", "3 masks")],
)  # fmt: skip
def test_one_stem_twice_is_an_error_that_lists_all(tmp_path: Path, images: str, masks: str, what: str) -> None:
    pairs, findings = pair(tmp_path, f"{images} z.png", f"{masks} z.png")
    assert [stem for stem, _, _ in pairs] == ["z"]
    assert len(findings) == 1
    assert f"is one of {what} with the stem a." in findings[0].summary
    assert len(findings[0].found.split(", ")) == int(what[0])


def test_an_empty_folder_is_one_finding_not_many(tmp_path: Path) -> None:
    _, findings = pair(tmp_path, "", "a.png b.png")
    assert [finding.summary for finding in findings] == [f"The folder {tmp_path / 'images'} holds no images."]
    assert pair(tmp_path / "other", "a.png b.png", "notes.txt")[1][-1].summary.endswith("masks holds no masks.")


def test_one_folder_for_both_is_told_apart_by_the_endings(tmp_path: Path) -> None:
    folder = touch(tmp_path / "all", "a.png", "a_mask.png", "b.jpg", "b_label.png")
    found = match_folders(folder, folder)
    assert [(p.stem, p.image.name, p.mask.name) for p in found.pairs] == [
        ("a", "a.png", "a_mask.png"), ("b", "b.jpg", "b_label.png"),
    ]  # fmt: skip
    assert not found.findings


def test_masks_inside_the_folder_of_images_are_no_images(tmp_path: Path) -> None:
    folder = touch(tmp_path / "set", "a.png", "masks/a.png")
    found = match_folders(folder, folder / "masks")
    assert [p.stem for p in found.pairs] == ["a"]
    assert not found.findings


def test_composed_and_decomposed_names_are_the_same_stem(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Zürich") for form in ("NFC", "NFD"))
    pairs, findings = pair(tmp_path, f"{composed}.png", f"{decomposed}.png")
    assert [stem for stem, _, _ in pairs] == [composed]
    assert not findings


def test_odd_but_legal_names_are_paired(tmp_path: Path) -> None:
    names = ["-dash.png", "two words.png", "quo'te\".png", "a.b.c.png", "%20.png"]
    found = match_folders(touch(tmp_path / "i", *names), touch(tmp_path / "m", *names))
    assert [p.stem for p in found.pairs] == sorted(name.removesuffix(".png") for name in names)


def test_names_that_cannot_be_printed_are_named_in_ascii(tmp_path: Path) -> None:
    folder = touch(tmp_path / "i", "a.png", "new\nline.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/broken\xff.png")).write_bytes(b"x")
    files, findings = list_images(folder)
    assert [path.name for path in files] == ["a.png"]
    assert len(findings) == 2
    for finding in findings:
        assert "cannot be printed" in finding.summary
        str(finding).encode("ascii")


def test_strangers_are_noted_pictures_of_other_kinds_refused_hidden_files_passed_over(tmp_path: Path) -> None:
    folder = touch(tmp_path / "i", "a.png", "notes.txt", "b.tga", ".hidden.png", ".cache/c.png", "._a.png")
    files, findings = list_images(folder)
    assert [path.name for path in files] == ["a.png"]
    assert [(Path(finding.file).name, finding.severity) for finding in findings] == [
        ("b.tga", "error"), ("notes.txt", "note"),
    ]  # fmt: skip
    assert "b.tga is of a format that is not read." in findings[0].summary


def test_pipes_folders_and_broken_links_named_png_are_errors(tmp_path: Path) -> None:
    folder = touch(tmp_path / "i", "a.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "link.png").symlink_to("nowhere.png")
    files, findings = list_images(folder)
    assert [path.name for path in files] == ["a.png"]
    assert [finding.severity for finding in findings] == ["error"] * 3
    text = "\n".join(map(str, findings))
    assert "folder.png is a folder, not a file." in text
    assert "pipe.png is a named pipe, not a file." in text
    assert "link.png cannot be opened." in text


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    other = touch(tmp_path / "other", "b.png")
    folder = touch(tmp_path / "i", "a.png")
    (folder / "linked").symlink_to(other)
    (folder / "circle").symlink_to(folder)
    touch(folder, "deep/c.png")
    (folder / "deep" / "circle").symlink_to(folder / "deep")
    files, findings = list_images(folder, follow_links=True)
    assert [relative_stem(path, folder) for path in files] == ["a", "deep/c", "linked/b"]
    assert [finding.severity for finding in findings] == ["warning"] * 2
    assert "circle leads to a folder that was read already" in findings[0].summary


def test_links_out_of_a_folder_are_errors_but_for_strangers_and_the_folder_left_out(tmp_path: Path) -> None:
    other = touch(tmp_path / "other", "b.png", "notes.txt")
    folder = touch(tmp_path / "i", "a.png", "deep/c.png")
    for name, target in {"linked": other, "b.png": other / "b.png", "notes": other / "notes.txt",
                         "within.png": folder / "a.png", "lost.png": other / "lost.png"}.items():  # fmt: skip
        (folder / name).symlink_to(target)
    (tmp_path / "door").symlink_to(folder)
    for place in (folder, tmp_path / "door"):
        files, findings = list_images(place)
        assert [relative_stem(path, place) for path in files] == ["a", "deep/c", "within"]
        errors = {Path(f.file).name: f.summary for f in findings if f.severity == "error"}
        assert errors.keys() == {"linked", "b.png", "lost.png"}
        assert all(f"is a link that leads out of {place}." in text for text in errors.values())
    assert "linked" not in str(list_images(folder, without=other)[1])


def test_names_that_differ_in_capital_letters_are_one(tmp_path: Path) -> None:
    touch(tmp_path / "probe", "x.png")
    if (tmp_path / "probe" / "X.png").exists():
        pytest.skip("the file system does not tell capital letters")
    pairs, findings = pair(tmp_path, "a.png A.png s/b.png S/b.png c.png", "a.png A.png s/b.png c_mask.png")
    assert [stem for stem, _, _ in pairs] == ["c"]
    first, second = (str(finding) for finding in findings)
    assert "A.png is one of 2 images with the stem A, but for capital letters." in first
    assert "S/b.png, " in second
    _, findings = pair(tmp_path / "more", "d.png", "d.png d_mask.png")
    assert "masks with the stem d." in findings[0].summary


def test_order_is_by_relative_path(tmp_path: Path) -> None:
    folder = touch(tmp_path / "i", "b/1.png", "a/2.png", "a.png", "b.png", "a/1.png")
    assert [relative_stem(path, folder) for path in list_images(folder)[0]] == ["a/1", "a/2", "a", "b/1", "b"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "file")
    with pytest.raises(DataError, match="absent does not exist"):
        list_images(tmp_path / "absent")
    with pytest.raises(DataError, match="file is not a folder"):
        list_images(tmp_path / "file")
    with pytest.raises(DataError, match="absent does not exist"):
        match_folders(touch(tmp_path / "i", "a.png"), tmp_path / "absent")

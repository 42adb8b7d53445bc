"""One scan reports everything that is wrong, by file, and its facts agree with plain numpy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from keepmap.data.classes import ClassNames
from keepmap.data.findings import Finding
from keepmap.data.scan import DataReport, scan
from keepmap.data.values import colour_value
from keepmap.errors import DataError, OptionError
from keepmap.protocols import Silent

RNG = np.random.default_rng(0)
DATA = os.environ.get("KEEPMAP_DATA")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders `images` and `masks` with three good pairs, 0/255."""
    for stem in ("a", "b", "c"):
        add(tmp_path, stem, RNG.integers(0, 2, (9, 12)) * 255)
    return tmp_path


def add(data: Path, stem: str, mask: np.ndarray, image: np.ndarray | None = None) -> None:
    for name in ("images", "masks"):
        (data / name).mkdir(exist_ok=True)
    if image is None:
        image = RNG.integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    Image.fromarray(image).save(data / "images" / f"{stem}.png")
    Image.fromarray(mask.astype(np.uint8)).save(data / "masks" / f"{stem}.png")


def check(data: Path, classes: tuple[str, ...] | None = None, ignore: str = "auto", least: int = 2) -> DataReport:
    names = ClassNames(classes) if classes else None
    return scan(
        data / "images", data / "masks", class_names=names, ignore=ignore, progress=Silent(), least=least
    )


def only(report: DataReport) -> Finding:
    """The one finding, which must be an error that `raise_if_failed` raises as it is."""
    assert report.failed
    assert len(report.findings) == 1, [str(finding) for finding in report.findings]
    with pytest.raises(DataError) as caught:
        report.raise_if_failed()
    assert str(caught.value) == str(report.findings[0])
    return report.findings[0]


def test_good_data_has_labels_facts_and_no_finding(data: Path) -> None:
    report = check(data)
    report.raise_if_failed()
    assert not report.failed
    assert not report.findings
    assert [fact.stem for fact in report.facts] == ["a", "b", "c"]
    assert report.labels is not None
    assert report.labels.values == (0, 255)
    assert report.labels_sentence == "0 and 255 are taken for background and foreground."


def test_a_truncated_an_empty_and_a_false_image_are_all_named_in_one_report(data: Path) -> None:
    big = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for stem in ("cut", "empty", "text"):
        add(data, stem, np.zeros((64, 64)), big)
    cut = data / "images" / "cut.png"
    cut.write_bytes(cut.read_bytes()[:1000])
    (data / "images" / "empty.png").write_bytes(b"")
    (data / "images" / "text.png").write_text("<html>404</html>")
    (data / "masks" / "text.png").write_bytes(b"")
    report = check(data)
    summaries = [finding.summary for finding in report.errors]
    assert [text.split("/")[-2:] for text in summaries] == [
        ["images", "cut.png is damaged and cannot be decoded."],
        ["images", "empty.png is an empty file."],
        ["images", "text.png is not the PNG file that its name promises."],
        ["masks", "text.png is an empty file."],
    ]
    assert [fact.stem for fact in report.facts] == ["a", "b", "c"]


def test_a_broken_mask_does_not_hide_a_broken_image(data: Path) -> None:
    for folder in ("images", "masks"):
        path = data / folder / "b.png"
        path.write_bytes(path.read_bytes()[:45])
    assert {Path(finding.file).parent.name for finding in check(data).errors} == {"images", "masks"}


@pytest.mark.parametrize(("shape", "hint"), [((12, 9), "sides swapped"), ((9, 11), "")])
def test_a_mask_of_another_size_is_named_with_both_sizes(data: Path, shape: tuple[int, int], hint: str) -> None:
    Image.fromarray(np.zeros(shape, np.uint8)).save(data / "masks" / "b.png")
    finding = only(check(data))
    assert finding.file.endswith("masks/b.png")
    assert "has another size than its image" in finding.summary
    assert f"mask {shape[1]} x {shape[0]} px, image 12 x 9 px" in finding.found
    assert hint in finding.found
    assert ("rotate the mask" in finding.do) == bool(hint)


def test_the_rotation_of_an_image_counts(data: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(data / "images" / "b.png") as image:
        image.save(data / "images" / "b.png", exif=exif)
    assert "sides swapped" in only(check(data)).found


RED, GREEN, PINK = (255, 0, 0), (0, 255, 0), (255, 0, 128)


def add_coloured(data: Path, stem: str, *colours: tuple[int, int, int]) -> np.ndarray:
    """A pair whose mask is colour-coded in blocks of 3 x 3 px."""
    blocks = np.arange(12).reshape(3, 4).repeat(3, 0).repeat(3, 1) % len(colours)
    mask = np.array(colours, np.uint8)[blocks]
    add(data, stem, mask, RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return mask


def test_a_colour_coded_mask_among_others_is_named_and_the_reverse(data: Path) -> None:
    add_coloured(data, "b", (0, 0, 0), RED)
    finding = only(check(data))
    assert finding.summary.endswith("masks/b.png is colour-coded, unlike the other masks.")
    assert finding.found == "RGB: rgb 0,0,0 (50 %), rgb 255,0,0 (50 %)"
    add_coloured(data, "a", (0, 0, 0), RED)
    finding = only(check(data))
    assert finding.summary.endswith("masks/c.png is not colour-coded, unlike the other masks.")


def test_colour_coded_masks_are_read_and_an_empty_one_with_them(tmp_path: Path) -> None:
    for stem, colours in (("a", ((0, 0, 0), RED)), ("b", (GREEN, RED)), ("empty", ((0, 0, 0),))):
        add_coloured(tmp_path, stem, *colours)
    report = check(tmp_path)
    assert not report.findings
    assert report.labels is not None
    assert set(report.labels.colours) == {(0, 0, 0), RED, GREEN}


def test_a_smoothed_coloured_mask_is_named(tmp_path: Path) -> None:
    for stem in "abcd":
        mask = add_coloured(tmp_path, stem, (0, 0, 0), RED, GREEN)
    mask[:, 2] = (128, 0, 0)
    Image.fromarray(mask).save(tmp_path / "masks" / "c.png")
    finding = only(check(tmp_path))
    assert finding.summary.endswith("masks/c.png contains colour 128,0,0, which is not a label.")
    assert "rgb 0,0,0 background" not in finding.expected
    assert "rgb 255,0,0" in finding.expected


def test_one_mask_with_hundreds_of_values_is_to_blame(data: Path) -> None:
    add(data, "b", (np.arange(600).reshape(20, 30) * 7 % 108 * 2 + 1).repeat(2, axis=0).repeat(2, axis=1))
    finding = only(check(data))
    assert finding.summary.endswith("masks/b.png contains 108 values that are no labels.")
    assert finding.expected == "0 background, 255 foreground"


def test_a_smoothed_mask_is_named(data: Path) -> None:
    add(data, "b", np.arange(2400).reshape(40, 60) * 7 % 108 * 2 + 1)
    finding = only(check(data))
    assert finding.summary.endswith("masks/b.png was smoothed or compressed.")
    assert finding.found.endswith("108 of 108 values occur at borders only")


def test_a_photograph_is_no_mask(data: Path) -> None:
    add(data, "b", np.zeros((30, 40)))
    Image.fromarray(RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(data / "masks" / "b.png")
    assert only(check(data)).summary.endswith("masks/b.png is no mask: it has too many colours.")


def test_a_table_of_colours_judges_each_file(tmp_path: Path) -> None:
    for stem, other in (("a", GREEN), ("b", PINK), ("c", GREEN)):
        add_coloured(tmp_path, stem, (0, 0, 0), RED, other)
    values = [colour_value(colour) for colour in ((0, 0, 0), RED, GREEN)]
    names = ClassNames(("ground", "car", "tree"), tuple(values))
    report = scan(tmp_path / "images", tmp_path / "masks", class_names=names, ignore="auto", progress=Silent())
    finding = only(report)
    assert finding.summary.endswith("masks/b.png contains colour 255,0,128, which is not a label.")
    assert finding.expected == "rgb 0,0,0 ground, rgb 255,0,0 car, rgb 0,255,0 tree"


@pytest.mark.parametrize("first", [1, 70_000])
def test_instance_masks_are_recognised_and_counted_as_one_class(tmp_path: Path, first: int) -> None:
    for stem, count in (("a", 30), ("b", 22), ("c", 3)):
        mask = np.zeros((9, 122), np.int32)
        for number in range(count):
            mask[2:5, 4 * number : 4 * number + 3] = first + number
        add(tmp_path, stem, np.zeros((9, 122)))
        (tmp_path / "masks" / f"{stem}.png").unlink()
        tifffile.imwrite(tmp_path / "masks" / f"{stem}.tif", mask)
    report = check(tmp_path)
    assert not report.findings
    assert report.labels is not None and report.labels.instances
    assert [fact.counts[1] for fact in report.facts] == [270, 198, 27]
    told = scan(tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent(),
                instances="yes")  # fmt: skip
    assert told.labels == report.labels
    for one, other in zip(told.facts, report.facts, strict=True):
        assert one.counts == other.counts
        assert other.row_centres == pytest.approx(one.row_centres)
        assert other.brightness == pytest.approx(one.brightness)
    plain = scan(tmp_path / "images", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent(),
                 instances="no")  # fmt: skip
    assert (plain.labels is None) is (first > 1)


def test_one_mask_of_objects_among_binary_ones_is_to_blame(data: Path) -> None:
    mask = np.zeros((9, 122))
    for number in range(30):
        mask[2:5, 4 * number : 4 * number + 3] = number + 1
    add(data, "b", mask)
    finding = only(check(data))
    assert finding.summary.endswith("masks/b.png contains 30 values that are no labels.")
    assert finding.expected == "0 background, 255 foreground"


def test_a_stray_value_is_laid_at_the_door_of_its_file(data: Path) -> None:
    mask = np.zeros((9, 12))
    mask[:3], mask[0, 0] = 255, 128
    add(data, "b", mask)
    finding = only(check(data))
    assert finding.summary.endswith("masks/b.png contains value 128, which is not a label.")
    assert finding.found == "128 (0.93 %, 1 px), beside 0 (67 %), 255 (33 %)"
    assert finding.expected == "0 background, 255 foreground"
    assert finding.do == "correct the mask, or pass --ignore 128"
    assert not check(data, ignore="128").failed


def test_an_id_beyond_a_gap_may_be_a_class(data: Path) -> None:
    for stem in ("a", "b", "c"):
        add(data, stem, np.arange(108).reshape(9, 12) % 3)
    mask = np.arange(108).reshape(9, 12) % 3
    mask[0, 0] = 4
    add(data, "b", mask)
    assert "name all classes with --classes if it is one" in only(check(data)).do
    assert not check(data, classes=("ground", "a", "b", "c", "d")).failed


@pytest.mark.parametrize("values", [[0, 7, 90], [0, 0, 0, 128, 255, 255]])
def test_values_that_most_masks_share_are_one_finding(data: Path, values: list[int]) -> None:
    for stem in ("a", "b", "c"):
        add(data, stem, RNG.choice(values, (9, 12)))
    finding = only(check(data))
    assert finding.file.endswith("masks")
    assert finding.summary == "The label values of the masks fit no rule."


def test_class_names_judge_each_file(data: Path) -> None:
    for stem, top in (("a", 3), ("b", 4), ("c", 3)):
        add(data, stem, np.arange(108).reshape(9, 12) % top)
    names = ("sky", "road", "car")
    finding = only(check(data, classes=names))
    assert finding.summary.endswith("masks/b.png contains value 3, which is not a label.")
    assert finding.expected == "0 sky, 1 road, 2 car"
    assert check(data, classes=(*names, "tree")).labels is not None


def test_instance_numbers_are_out_of_range(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    tifffile.imwrite(data / "masks" / "b.tif", np.full((9, 12), 70_000, np.int32))
    finding = only(check(data))
    assert "b.tif holds label values out of range." in finding.summary
    assert finding.found == "70000..70000"


@pytest.mark.parametrize("image", [np.zeros((9, 12), np.uint8), np.zeros((9, 12), np.uint16)])
def test_an_image_of_another_kind_is_named(data: Path, image: np.ndarray) -> None:
    add(data, "b", np.zeros((9, 12)), image)
    finding = only(check(data))
    assert finding.summary.endswith("images/b.png is of another kind than the other images.")
    assert finding.found == f"1 channel of {image.dtype}"
    assert finding.expected == "3 channels of uint8, like 2 of 3 images"


def test_lone_and_double_files_are_named(data: Path) -> None:
    (data / "masks" / "a.png").unlink()
    (data / "images" / "b.png").unlink()
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(data / "masks" / "c_mask.png")
    text = "\n".join(str(finding) for finding in check(data).errors)
    assert "images/a.png: this image has no mask." in text
    assert "masks/b.png: this mask has no image." in text
    assert "is one of 2 masks with the stem c." in text


def test_no_image_and_one_image(tmp_path: Path) -> None:
    add(tmp_path, "a", np.arange(108).reshape(9, 12) % 2)
    finding = only(check(tmp_path))
    assert "holds too few images with masks." in finding.summary
    assert not check(tmp_path, least=1).failed
    (tmp_path / "images" / "a.png").unlink()
    assert only(check(tmp_path)).summary == f"The folder {tmp_path / 'images'} holds no images."
    with pytest.raises(DataError, match="absent does not exist"):
        scan(tmp_path / "absent", tmp_path / "masks", class_names=None, ignore="auto", progress=Silent())


def test_pipes_and_folders_named_png_do_not_block(data: Path) -> None:
    os.mkfifo(data / "images" / "pipe.png")
    (data / "masks" / "folder.png").mkdir()
    summaries = [finding.summary for finding in check(data).errors]
    assert [text.split("/")[-1] for text in summaries] == [
        "pipe.png is a named pipe, not a file.", "folder.png is a folder, not a file.",
    ]  # fmt: skip


def test_five_errors_are_shown_and_the_others_counted(data: Path) -> None:
    for number in range(7):
        (data / "images" / f"x{number}.png").write_bytes(b"")
        Image.fromarray(np.zeros((9, 12), np.uint8)).save(data / "masks" / f"x{number}.png")
    with pytest.raises(DataError, match=r"(?s)The data cannot be used, 7 errors\..*and 2 more") as caught:
        check(data).raise_if_failed()
    assert str(caught.value).count("is an empty file.") == 5
    assert "keepmap check" in caught.value.do


def test_an_ignore_that_is_no_value_is_an_option_error(data: Path) -> None:
    with pytest.raises(OptionError, match="--ignore void"):
        check(data, ignore="void")


def test_progress_counts_every_pair(data: Path) -> None:
    class Counting(Silent):
        done, total = 0.0, 0.0

        def track(self, name: str, total: float, unit: str) -> Counting:
            self.total = total
            return self

        def advance(self, done: float = 1, **figures: float | str) -> None:
            self.done += done

    (data / "images" / "a.png").write_bytes(b"")
    progress = Counting()
    scan(data / "images", data / "masks", class_names=None, ignore="auto", progress=progress)
    assert progress.done == progress.total == 3


@pytest.mark.skipif(not DATA, reason="needs KEEPMAP_DATA")
@pytest.mark.parametrize(
    ("folder", "ignore", "pairs", "classes"), [("nuclei", "auto", 221, 2), ("camvid/train", "11", 367, 11)]
)
def test_real_data_can_be_trained_on(folder: str, ignore: str, pairs: int, classes: int) -> None:
    report = check(Path(DATA or "") / folder, ignore=ignore)
    assert not report.failed
    assert len(report.facts) == pairs
    assert report.labels is not None
    assert report.labels.count == classes


def write_floats(data: Path, stem: str, image: np.ndarray, nodata: str | None = None) -> None:
    (data / "images" / f"{stem}.png").unlink(missing_ok=True)
    extra = [(42113, "s", 0, nodata, True)] if nodata else []
    tifffile.imwrite(data / "images" / f"{stem}.tif", image, extratags=extra, photometric="minisblack")


def test_floats_have_the_range_of_their_values(data: Path) -> None:
    for stem, low in (("a", -3.5), ("b", 0.25), ("c", 7)):
        image = RNG.random((9, 12), dtype=np.float32) + np.float32(low)
        write_floats(data, stem, image)
    fact = check(data).facts[2]
    assert fact.dtype == "float32"
    assert (fact.low, fact.high) == (image.min(), image.max())
    np.testing.assert_allclose(fact.sums, [image.sum(dtype=float)])


def test_what_was_never_measured_counts_nowhere(data: Path) -> None:
    for stem in "abc":
        image = RNG.random((9, 12), dtype=np.float32)
        image[:2] = -9999
        mask = np.zeros((9, 12), np.uint8)
        mask[5:] = 255
        mask[:2] = 77  # stands only where nothing was measured
        add(data, stem, mask, np.zeros((9, 12), np.uint8))
        write_floats(data, stem, image, "-9999")
    report = check(data)
    report.raise_if_failed()
    (note,) = report.findings
    assert (note.severity, note.found) == ("note", "22.22% of their pixels")
    fact = report.facts[2]
    assert fact.measured == 84
    assert fact.counts == {0: 36, 255: 48}
    assert 0 <= fact.low < fact.high <= 1
    np.testing.assert_allclose(fact.sums, [image[2:].sum(dtype=float)])
    np.testing.assert_allclose(fact.brightness[255], image[5:].mean(), rtol=1e-6)
    np.testing.assert_allclose(fact.row_centres[255], (np.arange(5, 9) + 0.5).mean() / 9)


def test_values_that_are_no_numbers_are_counted_over_the_whole_file(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepmap.data.facts._BAND", 24)
    monkeypatch.setattr("keepmap.data.facts._ROWS", 1)
    image = RNG.random((9, 12), dtype=np.float32)
    image[0, 0], image[8, 3:5] = np.nan, np.inf
    write_floats(data, "b", image)
    assert any(finding.found == "NaN or infinity in 3 of 108 values read" for finding in check(data).errors)

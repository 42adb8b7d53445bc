"""The verbs that make a RUN, and RUNs of networks and augmentations of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor, nn

import keepmap
from keepmap.api.training import Run
from keepmap.cli.main import main
from keepmap.errors import Interrupted, OptionError, OutputError, RunError
from keepmap.protocols import Silent
from keepmap.training.loop import Position


def test_train_returns_what_is_on_disk(run: Run) -> None:
    assert run.steps == 2
    assert (run.path / "model.safetensors").is_file()
    assert run.plan.crop == 64
    assert 0 <= run.best <= 1


def test_an_existing_run_is_safe(data: Path, run: Run) -> None:
    with pytest.raises(OutputError, match="--resume"):
        keepmap.train(data / "images", data / "masks", run.path, steps=1)


def test_resume_of_a_finished_run_ends_at_once(run: Run) -> None:
    again = keepmap.train(out=run.path, resume=True)
    assert (again.steps, again.best) == (2, run.best)


def test_contradictory_calls(data: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="No RUN folder"):
        keepmap.train(data / "images", data / "masks")
    with pytest.raises(OptionError, match="Images and masks are needed"):
        keepmap.train(out=tmp_path / "run")
    with pytest.raises(OptionError, match="takes no folders and no options but --workers"):
        keepmap.train(out=run.path, resume=True, seed=3)
    with pytest.raises(RunError, match="is no RUN"):
        keepmap.train(out=tmp_path / "absent", resume=True)
    with pytest.raises(OptionError, match="two or three folders"):
        keepmap.evaluate(run.path)
    with pytest.raises(OptionError, match="needs images"):
        keepmap.evaluate(run.path, data / "masks")
    with pytest.raises(OptionError, match="did you mean imagenet"):
        keepmap.train(data / "images", data / "masks", tmp_path / "run", weights="imagnet")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="brings its own"):
        keepmap.evaluate(run.path, data / "images", data / "masks", ignore="1")


def test_an_interrupt_says_how_to_go_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = object()
    monkeypatch.setattr("keepmap.api.training.begin", lambda *_: (_Steps(plan), Position(step=3, signal=15), True))
    with pytest.raises(Interrupted, match="after step 3 of 9") as caught:
        keepmap.train(data / "images", data / "masks", tmp_path / "run")
    assert caught.value.exit_code == 143
    assert "--resume" in caught.value.do


class _Steps:
    """A plan of nine steps."""

    steps = 9

    def __init__(self, plan: object) -> None:
        self.plan = plan


class Own(nn.Module):
    """A network that keepmap does not know."""

    channels, classes, stride, reach, local = 3, 3, 1, (1, 1), True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x / 255)


SHORT = {"steps": 1, "crop": 32, "batch": 2, "precision": "float32"}


@pytest.fixture(scope="module")
def own_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "own"
    return keepmap.train(data / "images", data / "masks", out, network=Own(), **SHORT)


def test_every_verb_takes_the_network_of_an_own_run_again(data: Path, own_run: Run, tmp_path: Path) -> None:
    written = keepmap.predict(own_run.path, data / "images", tmp_path / "out", precision="float32", network=Own())
    assert len(written) == 6
    scores = keepmap.evaluate(own_run.path, data / "images", data / "masks", precision="float32", network=Own())
    assert scores.matrix == keepmap.evaluate(tmp_path / "out", data / "masks").matrix
    assert keepmap.train(out=own_run.path, resume=True, network=Own()).steps == 1
    image = np.asarray(Image.open(sorted((data / "images").iterdir())[0]))
    small = keepmap.load(own_run.path, precision="float32", network=Own(), memory="300K")
    assert small.plan_way(*image.shape[:2]).kind == "tiles"
    np.testing.assert_array_equal(small(image), np.asarray(Image.open(written[0])))
    with pytest.raises(OptionError, match="nothing is computed"):
        keepmap.evaluate(tmp_path / "out", data / "masks", network=Own())


@pytest.mark.parametrize(
    "words", [["predict", "IMAGES", "-o", "OUT"], ["evaluate", "IMAGES", "MASKS"], ["train", "--resume"]], ids=str
)
def test_the_shell_says_that_an_own_run_is_for_python(
    words: list[str], data: Path, own_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"IMAGES": data / "images", "MASKS": data / "masks", "OUT": tmp_path / "out"}
    verb, *rest = [str(places.get(word, word)) for word in words]
    run = ["-o", str(own_run.path)] if verb == "train" else [str(own_run.path)]
    assert main([verb, *run, *rest]) == 2
    said = capsys.readouterr().err
    assert "weights of the class Own" in said
    assert "the command line cannot" in said
    assert not (tmp_path / "out").exists()


def test_a_network_of_keepmap_is_not_wanted_again(data: Path, tmp_path: Path) -> None:
    network = keepmap.build_model("unet", channels=3, classes=3, widths=(4, 6, 8), deep=1)
    lines: list[str] = []

    class Lines(Silent):
        def say(self, text: str) -> None:
            lines.append(text)

    run = keepmap.train(data / "images", data / "masks", tmp_path / "run", network=network, progress=Lines(), **SHORT)
    assert "network unet: the object that was handed over as network=" in lines
    assert "loss    of 2 heads, weighted 1, 0; the first is the one that predicts" in lines
    assert (run.plan.network, run.plan.options["deep"]) == ("unet", 1)
    assert keepmap.load(run.path).runtime.classes == 3


def darker(*, image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """An augmentation of the user's own."""
    return {"image": np.uint8(image * np.random.random()), "mask": mask}


def test_an_own_augmentation_is_needed_again_to_resume(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = data / "images", data / "masks"
    network = keepmap.build_model("unet", channels=3, classes=3, widths=(4, 8))
    run = keepmap.train(images, masks, tmp_path / "run", network=network, augment=darker, **SHORT)
    with pytest.raises(RunError, match="begun with augment=, the callable darker") as caught:
        keepmap.train(out=run.path, resume=True)
    assert "augment=..." in caught.value.do
    assert keepmap.train(out=run.path, resume=True, augment=darker).steps == 1
    plain = keepmap.train(images, masks, tmp_path / "plain", network=network, **SHORT)
    with pytest.raises(RunError, match="begun without augment="):
        keepmap.train(out=plain.path, resume=True, augment=darker)
    ended = _Steps(object()), Position(step=3, signal=2), True
    monkeypatch.setattr("keepmap.api.training.go_on", lambda *_, **__: ended)
    with pytest.raises(Interrupted) as interrupted:
        keepmap.train(out=run.path, resume=True, augment=darker)
    assert interrupted.value.do == f'keepmap.train(out="{run.path}", resume=True, augment=...)'


def test_a_preview_is_a_picture_and_nothing_else(data: Path, tmp_path: Path) -> None:
    network = keepmap.build_model("unet", channels=3, classes=3, widths=(4, 8))
    file = tmp_path / "sheet.png"
    run = keepmap.train(data / "images", data / "masks", preview=file, network=network, **SHORT)
    assert (run.path, run.steps, run.plan.crop) == (file, 0, 32)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(file) as picture:
        assert picture.width > 1000
    with pytest.raises(OptionError, match="what a new training begins with"):
        keepmap.train(out=tmp_path, resume=True, preview=file)


def test_an_interrupt_of_an_own_run_says_how_to_go_on(
    data: Path, own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = _Steps(object()), Position(step=3, signal=2), True
    monkeypatch.setattr("keepmap.api.training.go_on", lambda *_, **__: ended)
    with pytest.raises(Interrupted) as caught:
        keepmap.train(out=own_run.path, resume=True, network=Own())
    assert caught.value.do == f'keepmap.train(out="{own_run.path}", resume=True, network=...)'

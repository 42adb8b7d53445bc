"""The verb that shows the others at work on a drawn sample.

Only puts the other verbs together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from keepmap.api.prediction import evaluate, predict
from keepmap.api.training import Run, train
from keepmap.config import from_arguments
from keepmap.data.drawn import draw_dataset
from keepmap.metrics.confusion import Scores
from keepmap.options import DemoOptions
from keepmap.protocols import Progress, Silent, StrPath
from keepmap.reporting.pictures import draw_comparisons
from keepmap.runs import RunFolder


@dataclass(frozen=True)
class Demo:
    """What `demo` leaves behind: the run, its scores on images it did not see, one picture."""

    run: Run
    scores: Scores
    picture: Path


def demo(out: StrPath = "keepmap-demo", *, time: str = "1m", seed: int = 0, progress: Progress | None = None) -> Demo:
    """Draw a small data set, train on it, score and predict images that were not seen, and draw one picture."""
    options = from_arguments(DemoOptions, locals())
    show, folder = progress or Silent(), Path(out)
    RunFolder(folder).check_free()
    seen, unseen = folder / "data" / "train", folder / "data" / "test"
    draw_dataset(seen, count=40, seed=options.seed)
    draw_dataset(unseen, count=10, seed=options.seed + 1)
    run = train(
        seen / "images",
        seen / "masks",
        folder / "run",
        classes=str(seen / "classes.txt"),
        time=options.time,
        seed=options.seed,
        progress=show,
    )
    images, masks = unseen / "images", unseen / "masks"
    scores = evaluate(run.path, images, masks, progress=show)
    predictions = predict(run.path, images, folder / "predictions", progress=show)
    triples = [(images / p.name, masks / p.name, p) for p in predictions]
    picture = draw_comparisons(triples, RunFolder(run.path).read_config().labels, folder / "demo.png")
    return Demo(run, scores, picture)

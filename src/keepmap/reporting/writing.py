"""Reports and model cards as files: of a training into its RUN, of an evaluation where it was asked for.

Knows which parts a report is made of; what they look like is in `run_page` and `model_card`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from keepmap import external
from keepmap.config import from_dict, read_json, write_text
from keepmap.data.pairing import match_folders
from keepmap.errors import KeepmapError, OptionError, RunError
from keepmap.evaluation.looking import Sight, sight_of_masks, sight_of_run
from keepmap.inference.predictor import Predictor
from keepmap.metrics.confusion import Scores
from keepmap.options import EvaluateOptions
from keepmap.protocols import Progress, StrPath
from keepmap.reporting import charts
from keepmap.reporting.cases import make_gallery
from keepmap.reporting.model_card import model_card
from keepmap.reporting.run_facts import RunFacts, command_line, read_facts, train_command
from keepmap.reporting.run_page import Subject, run_page
from keepmap.resources import resolve_device
from keepmap.runs import FORMAT, RunFolder

_AFTER_TRAINING = 1_500_000
"""Pixels that are predicted again for the pictures of a training's report, which its time has to suffice for."""
_AFTER_EVALUATION = 60_000_000
_REGIONS = 4


def report_training(run: RunFolder, open_run: Callable[[Path], Predictor], progress: Progress) -> None:
    """Write report.html and model-card.md of a finished training into its RUN.

    open_run: its predictor. A training never fails by its report: what stands in the way is said.
    """
    try:
        if not run.validation_file.is_file():
            progress.say("report  none: the held-out images were never scored")
            return
        facts = read_facts(run)
        subject = _of_training(run, facts, open_run)
        write_text(run.report_file, run_page(subject))
        write_text(run.card_file, model_card(subject))
    except (KeepmapError, OSError) as error:
        progress.say(f"note    the report could not be written: {str(error).splitlines()[0]}")
        return
    progress.say(f"report  {run.report_file}")
    _say_missing(progress)


def _of_training(run: RunFolder, facts: RunFacts, open_run: Callable[[Path], Predictor]) -> Subject:
    where = str(run.validation_file)
    scores = from_dict(Scores, read_json(run.validation_file, format=FORMAT), where, RunError)
    if facts.split is None:
        raise RunError(f"{run.path} does not say which images it was trained on.", found="no split.json")
    held_out = set(facts.split.validation)
    reading = facts.split.options
    matching = match_folders(Path(facts.split.images), Path(facts.split.masks), follow_links=reading.follow_links)
    pairs = {pair.stem: pair for pair in matching.pairs if pair.stem in held_out}
    sight = Sight(pairs, facts.labels, reading, open_run(run.path))
    gallery = make_gallery(scores, sight, _AFTER_TRAINING, _REGIONS)
    data = _data_name(Path(facts.split.images))
    device = facts.plan.device if facts.plan else "cpu"
    command = train_command(facts)
    return Subject(run.path.absolute().name, data, True, scores, gallery, facts.labels, facts, command, device)


def require_card(source: Path, options: EvaluateOptions) -> None:
    """Raise OptionError for a card of what is no RUN, or of the mean of several networks or views."""
    if not options.card:
        return
    if not RunFolder(source).config_file.is_file():
        raise OptionError("--card is of a RUN.", found=str(source), expected="evaluate RUN IMAGES MASKS")
    if options.tta or options.ensemble:
        raise OptionError("--card is of one RUN as it is.", do="leave out --tta and --ensemble, or --card")


def report_evaluation(
    folders: Sequence[StrPath], scores: Scores, options: EvaluateOptions, open_run: Callable[[Path], Predictor],
    progress: Progress,
) -> None:
    """Write the page and the model card of an evaluation to where the options say. Raises OutputError, DataError."""
    source, *others = map(Path, folders)
    facts = None
    if len(others) == 2:
        sight = sight_of_run(open_run(source), others, options)
        facts = read_facts(RunFolder(source)) if RunFolder(source).config_file.is_file() else None
    else:
        sight = sight_of_masks(source, others[0], options)
    gallery = make_gallery(scores, sight, _AFTER_EVALUATION, _REGIONS)
    command = command_line("evaluate", [str(folder) for folder in folders], options, EvaluateOptions())
    data = _data_name(others[0])
    names = " + ".join(each.absolute().name for each in (source, *map(Path, options.ensemble or ())))
    title = f"{names}{f', averaged over {options.tta},' if options.tta else ''} on {data}"
    device = resolve_device(options.device) if facts else "cpu"
    subject = Subject(title, data, False, scores, gallery, sight.labels, facts, command, device)
    if options.html:
        write_text(Path(options.html), run_page(subject))
        _say_missing(progress)
    if options.card:
        write_text(Path(options.card), model_card(subject))


def _data_name(folder: Path) -> str:
    """What a data set is called by the folders that a folder of it lies in: "nuclei/test"."""
    return "/".join(folder.absolute().parent.parts[-2:]).strip("/")


def _say_missing(progress: Progress) -> None:
    if not charts.can_draw():
        progress.say(f"note    the report has no charts: {external.install_line('matplotlib')}")

"""Reports and model cards as files: of a training into its RUN, of an evaluation where it was asked for.

Knows which parts a report is made of; what they look like is in `run_page` and `model_card`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from keepmap import external
from keepmap.artefacts.loading import computed_by, is_artefact
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
from keepmap.reporting.run_facts import Rows, RunFacts, command_line, file_rows, model_rows, read_facts, train_command
from keepmap.reporting.run_page import Subject, run_page
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
        subject = _of_training(run, facts, open_run, progress)
        write_text(run.report_file, run_page(subject))
        write_text(run.card_file, model_card(subject))
    except (KeepmapError, OSError) as error:
        progress.say(f"note    the report could not be written: {str(error).splitlines()[0]}")
        return
    progress.say(f"report  {run.report_file}")
    _say_missing(progress)


def _of_training(
    run: RunFolder, facts: RunFacts, open_run: Callable[[Path], Predictor], progress: Progress
) -> Subject:
    where = str(run.validation_file)
    scores = from_dict(Scores, read_json(run.validation_file, format=FORMAT), where, RunError)
    if facts.split is None:
        raise RunError(f"{run.path} does not say which images it was trained on.", found="no split.json")
    held_out = set(facts.split.validation)
    reading = facts.split.options
    matching = match_folders(Path(facts.split.images), Path(facts.split.masks), follow_links=reading.follow_links)
    pairs = {pair.stem: pair for pair in matching.pairs if pair.stem in held_out}
    predictor = open_run(run.path)
    gallery = make_gallery(scores, Sight(pairs, facts.labels, reading, predictor), _AFTER_TRAINING, _REGIONS, progress)
    data = _data_name(Path(facts.split.images))
    command = train_command(facts)
    model = model_rows(facts, gallery.speed, "; ".join(computed_by(predictor)))
    return Subject(run.path.absolute().name, data, True, scores, gallery, facts.labels, facts, command, model)


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
    progress: Progress, given: bool = False,
) -> None:
    """Write the page and the model card of an evaluation to where the options say. Raises OutputError, DataError.

    given: whether the network was handed over as an object.
    """
    source, *others = map(Path, folders)
    facts = None
    if len(others) == 2:
        sight = sight_of_run(open_run(source), others, options)
        facts = read_facts(RunFolder(source)) if RunFolder(source).config_file.is_file() else None
    else:
        sight = sight_of_masks(source, others[0], options)
    gallery = make_gallery(scores, sight, _AFTER_EVALUATION, _REGIONS, progress)
    model: Rows = []
    if facts is not None and sight.predictor is not None:
        model = model_rows(facts, gallery.speed, "; ".join(computed_by(sight.predictor)))
    elif sight.predictor is not None and is_artefact(source):
        model = file_rows(source, sight.predictor, gallery.speed)
    places = [str(each.absolute()) for each in (source, *others)]
    command = command_line("evaluate", places, _anywhere(options), EvaluateOptions())
    command += "    # from Python, with network=..." * given
    data = _data_name(others[0])
    names = " + ".join(each.absolute().name for each in (source, *map(Path, options.ensemble or ())))
    title = f"{names}{f', averaged over {options.tta},' if options.tta else ''} on {data}"
    subject = Subject(title, data, False, scores, gallery, sight.labels, facts, command, model)
    if options.html:
        write_text(Path(options.html), run_page(subject))
        _say_missing(progress)
    if options.card:
        write_text(Path(options.card), model_card(subject))


def _anywhere(options: EvaluateOptions) -> EvaluateOptions:
    """The options with files by a path that holds in any folder."""
    classes = str(Path(options.classes).absolute()) if options.classes else None
    groups = str(Path(options.group_by).absolute()) if Path(options.group_by).is_file() else options.group_by
    ensemble = tuple(str(Path(each).absolute()) for each in options.ensemble or ()) or None
    return replace(options, classes=classes, group_by=groups, ensemble=ensemble)


def _data_name(folder: Path) -> str:
    """What a data set is called by the folders that a folder of it lies in: "nuclei/test"."""
    return "/".join(folder.absolute().parent.parts[-2:]).strip("/")


def _say_missing(progress: Progress) -> None:
    if not charts.can_draw():
        progress.say(f"note    the report has no charts: {external.install_line('matplotlib')}")

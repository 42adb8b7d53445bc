"""Predict files and folders: from the images that there are to the files that were asked for.

Knows neither networks nor file formats. Names are planned in `jobs`, the overlap of reading, computing and writing is
`pipeline`'s, what is made of a label map is `finished`'s, and what a job that goes on takes up is `record`'s.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keepmap.config import write_text
from keepmap.data import headers
from keepmap.data.images import open_image
from keepmap.data.labels import LabelSet
from keepmap.data.sinks import LabelSink, ProbabilitySink, open_probabilities, open_sink, write_array
from keepmap.errors import DataError, OutOfMemory
from keepmap.inference.batching import Batches
from keepmap.inference.finished import Row, blank_of, finish, mask_dtype, write_table
from keepmap.inference.jobs import Failure, Job, check_table, failed, plan_outputs, prepare_folders
from keepmap.inference.pipeline import Stages, overlapped
from keepmap.inference.predictor import MEGAPIXEL, Predictor
from keepmap.inference.record import NAME as RECORD
from keepmap.inference.record import Record, State
from keepmap.inference.review import FILE as REVIEW
from keepmap.inference.review import Sums, review_lines
from keepmap.inference.way import Position, Way
from keepmap.options import PredictOptions
from keepmap.protocols import Array, ArraySource, Output, Progress, Silent, Tracker, Window

_AHEAD = 256 << 20
"""Bytes of images that are read ahead."""
_SAVED_EVERY = 5.0
"""Seconds between two savings of how far a large image is."""


def predict_files(
    predictor: Predictor,
    inputs: Sequence[Path],
    out: Path,
    options: PredictOptions = PredictOptions(),  # noqa: B008
    *,
    about: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Predict images into `out` and return the paths of their masks; see `plan_outputs` for the names.

    about: what else than `options` decides the bytes; with it, it is kept in `out` how far the job is, and
    `options.resume` goes on from there.
    Each file appears under its name only when it is whole; older files of the same name are replaced. An image that
    cannot be predicted does not stop the others: DataError at the end names it. OutputError, before the first image,
    where `out` cannot be written.
    """
    show = progress or Silent()
    if options.coarse:
        predictor.runtime.check_scores()
    jobs, failures = plan_outputs(inputs, out, options)
    folders = {out, *(path.parent for job in jobs for path in job.outputs)}
    if options.table is not None:
        check_table(Path(options.table), jobs, (out / RECORD, out / REVIEW))
        folders.add(Path(options.table).parent)
    prepare_folders(folders)
    total = len(jobs) + len(failures)
    record = None if about is None else Record(out, about, options)
    if record is not None and record.replaces:
        show.say(f"{out / RECORD} was of another prediction and begins anew; other masks in {out} stay.")
    rows = {job.mask: found for job in jobs if record and (found := record.finished(job)) is not None}
    if rows:
        show.say(f"{len(rows)} of {total} images are predicted already.")
    work = _Work(predictor, options, record, show)
    sized, unfit = work.sizes(job for job in jobs if job.mask not in rows)
    failures += unfit
    stages = Stages(work.read, work.compute, work.write, work.kind, work.weight)
    with show.track("predict", sum(math.prod(one.size) for one in sized) / MEGAPIXEL, "megapixels") as work.tracker:
        for one, outcome in overlapped(sized, stages, _AHEAD):
            if isinstance(outcome, DataError):
                failures.append(Failure(one.job.image, outcome))
                if record is not None:
                    record.forget(one.job)
            else:
                rows[one.job.mask] = outcome
    work.write_tables(out, jobs, rows)
    if failures:
        raise failed(failures, total)
    return [job.mask for job in jobs]


@dataclass(frozen=True)
class _Sized:
    """An image whose header is read. size: (H, W). bytes: that are read ahead. most: images like it in one pass."""

    job: Job
    size: tuple[int, int]
    dtype: np.dtype[np.generic]
    bytes: int
    most: int


@dataclass(frozen=True)
class _Read:
    """An image that can be computed. image: (C, H, W) as the network sees it, None where it is read part by part.

    state: of an image that was stopped on its way.
    """

    job: Job
    source: ArraySource
    way: Way
    image: Array | None = None
    state: State | None = None


@dataclass(frozen=True)
class _Computed:
    """A label map in its sink. open: what has to be closed so that the files appear. sums: for the review."""

    read: _Read
    sink: LabelSink
    open: ExitStack
    sums: Array | None


class _Held:
    """An ArraySource that was read: the file is not asked again."""

    def __init__(self, source: ArraySource) -> None:
        self.path, self.shape, self.dtype = source.path, source.shape, source.dtype
        self.nodata, self.orientation, self.geometry = source.nodata, source.orientation, source.geometry
        self._pixels = source.read()

    def read(self, window: Window | None = None) -> Array:
        """The window (C, h, w)."""
        return self._pixels if window is None else self._pixels[(slice(None), *window)]


class _Work:
    """What happens to one image, or to a few of one size: see `pipeline.Stages`."""

    def __init__(
        self, predictor: Predictor, options: PredictOptions, record: Record | None, show: Progress
    ) -> None:
        self._predictor, self._options, self._record = predictor, options, record
        self._show, self._next_saving = show, 0.0
        self.tracker: Tracker = Silent()
        self.sums: dict[Path, Array] = {}
        output: Output = "probabilities" if options.probabilities or options.review else "labels"
        self._batches = Batches(predictor.runtime, output, predictor.memory_bytes)

    def sizes(self, jobs: Iterable[Job]) -> tuple[list[_Sized], list[Failure]]:
        """What the headers of the images say, and those that cannot be predicted; says how many go in one pass."""
        sized, failures = [], []
        for job in jobs:
            try:
                sized.append(self._sized(job))
            except DataError as error:
                failures.append(Failure(job.image, error))
        if whole := sum(one.bytes > 0 for one in sized):
            self._show.say(f"{whole} of {len(sized)} images: one pass each.")
        return sized, failures

    def _sized(self, job: Job) -> _Sized:
        """What the header of an image says. Raises DataError where it cannot be predicted."""
        source = open_image(job.image, self._options)
        self._predictor.check(source)
        channels, height, width = source.shape
        if job.overlay is not None or job.coarse is not None:
            headers.require_pixels(job.image, height, width, self._options.max_pixels, channels)
        if self._predictor.plan_way(height, width).kind != "one pass":
            return _Sized(job, (height, width), source.dtype, 0, 1)
        held = math.prod(source.shape) * source.dtype.itemsize
        most = 1 if job.coarse is not None else self._batches.most(height, width)
        return _Sized(job, (height, width), source.dtype, held, most)

    def kind(self, one: _Sized) -> tuple[Hashable, int]:
        """Images of one size and type go together."""
        return (one.size, one.dtype), one.most

    def weight(self, one: _Sized) -> int:
        """Bytes of an image that is read ahead; those that go part by part are read when they are computed."""
        return one.bytes

    def read(self, one: _Sized) -> _Read:
        """Read an image that goes in one pass, open another."""
        job = one.job
        source = open_image(job.image, self._options)
        state = self._record.begun(job) if self._record else None
        way = state.way if state else self._predictor.plan_way(*one.size)
        if way.kind != "one pass":
            return _Read(job, source, way, None, state)
        held = _Held(source)
        return _Read(job, held, way, self._predictor.read(held))

    def compute(self, several: Sequence[_Read]) -> Iterator[_Computed | DataError]:
        """The label maps of images, in their sinks, or why there is none, one after the other."""
        images = [read.image for read in several if read.image is not None]
        parts = None
        if len(several) > 1 and len(images) == len(several):  # the memory may be less since their headers were read
            with contextlib.suppress(OutOfMemory):
                parts = self._batches.run(images)
        if parts is not None:
            yield from self._together(several, parts)
            return
        for read in several:
            try:
                found: _Computed | DataError = self._alone(read)
            except DataError as error:
                found = error
            yield found

    def _together(self, several: Sequence[_Read], parts: Sequence[Array]) -> list[_Computed]:
        computed = []
        with ExitStack() as opened:  # where one cannot be delivered, the files of those before it go too
            for read, part in zip(several, parts, strict=True):
                computed.append(self._delivered(read, part))
                opened.push(computed[-1].open)
            opened.pop_all()
        return computed

    def write(self, computed: _Computed) -> list[Row]:
        """Clean and measure a label map, write what is asked for and close its sink; the rows of the table."""
        read, job = computed.read, computed.read.job
        with computed.open:
            if self._record is not None and (self._options.smallest_object or self._options.fill_holes):
                self._record.forget(job)  # what is cleaned in part cannot be gone on with
            rows = finish(job, read.source, computed.sink.pixels, self._predictor.labels, self._options)
        if computed.sums is not None:
            self.sums[job.mask] = computed.sums
        if self._record is not None:
            self._record.add(job, rows, None if computed.sums is None else computed.sums.tolist())
        return rows

    def write_tables(self, out: Path, jobs: Sequence[Job], rows: Mapping[Path, Sequence[Row]]) -> None:
        """Write the tables that are asked for, of the images that are whole. rows: by mask."""
        if self._options.table is not None:
            write_table(Path(self._options.table), [row for job in jobs for row in rows.get(job.mask, ())])
        if not self._options.review:
            return
        if self._record is not None:
            self.sums |= {job.mask: np.array(sums) for job in jobs if (sums := self._record.sums(job)) is not None}
        summed = {str(job.image): self.sums[job.mask] for job in jobs if job.mask in self.sums}
        write_text(out / REVIEW, review_lines(summed, self._predictor.labels.names))

    def _delivered(self, read: _Read, part: Array) -> _Computed:
        whole = slice(0, read.source.shape[1]), slice(0, read.source.shape[2])
        with ExitStack() as stack:
            sink, values = self._sinks(read, stack, None)
            sums = self._summed(read, values)
            self._predictor.deliver(read.source, whole, part, sink, sums or values)
            self.tracker.advance(part.shape[-2] * part.shape[-1] / MEGAPIXEL)
            return _Computed(read, sink, stack.pop_all(), sums.sums if sums else None)

    def _alone(self, read: _Read) -> _Computed:
        source, job, memory = read.source, read.job, self._predictor.memory_bytes
        if self._record is not None and read.state is None:
            self._record.forget(job)  # what an earlier attempt kept is not in the pixels that begin now
        start, written = Position(), None
        if self._record is not None and read.way.kind != "one pass":
            start, written = (read.state.position, read.state.written) if read.state else (start, 0)
        if read.way.kind != "one pass":
            going = f" goes on at {100 * (written or 0) // math.prod(source.shape[1:])} %," if written else ""
            computed = f"{read.way.overhead((source.shape[1], source.shape[2])):.2f} times its pixels"
            self._show.say(f"{job.image}:{going} {read.way}, {computed}; {read.way.because}.")
            self.tracker.advance((written or 0) / MEGAPIXEL)
        with ExitStack() as stack:
            sink, values = self._sinks(read, stack, written)
            sums = self._summed(read, values)
            reached = partial(self._saved, job, (sink, values), sums) if written is not None else None
            taken = self._predictor.predict(
                source, sink, probabilities=sums or values, tracker=self.tracker, way=read.way, start=start,
                reached=reached,
            )  # fmt: skip
            if self._predictor.memory_bytes < memory:
                self._show.say(f"{job.image}: the memory did not suffice for {read.way}; {taken}.")
            if job.coarse is not None:
                write_array(job.coarse, self._predictor.coarse(self._predictor.read(source), str(job.image)))
            return _Computed(read, sink, stack.pop_all(), sums.sums if sums else None)

    def _summed(self, read: _Read, values: ProbabilitySink | None) -> Sums | None:
        """What probabilities pass through on their way to `values`, where the images are to be reviewed."""
        if not self._options.review:
            return None
        return Sums(read.source, self._predictor.labels.count, values, read.state.sums if read.state else None)

    def _sinks(
        self, read: _Read, stack: ExitStack, written: int | None
    ) -> tuple[LabelSink, ProbabilitySink | None]:
        """Of the mask and, where they are wanted, of the probabilities."""
        job, source, labels = read.job, read.source, self._predictor.labels
        sink = stack.enter_context(open_mask(job.mask, source, labels, written))
        if job.probabilities is None:
            return sink, None
        kind, shape = self._options.probability_type, (labels.count, *source.shape[1:])
        return sink, stack.enter_context(open_probabilities(job.probabilities, shape, kind, written))

    def _saved(
        self, job: Job, sinks: tuple[LabelSink, LabelSink | None], sums: Sums | None, way: Way, position: Position
    ) -> None:
        """Keep how far an image is, now and then. sinks: of the mask and of the probabilities."""
        if self._record is None or time.monotonic() < self._next_saving:
            return
        for each in sinks:
            if each is not None:
                each.flush()
        self._record.save(job, State(way, position, sinks[0].written, sums.sums.tolist() if sums else None))
        self._next_saving = time.monotonic() + _SAVED_EVERY


def open_mask(
    path: Path, source: ArraySource, labels: LabelSet, written: int | None = None
) -> AbstractContextManager[LabelSink]:
    """The sink at `path` for the mask of `source`: of its size, with its geometry, in a type that holds every value.

    written: as of `open_sink`.
    """
    blank, dtype = blank_of(source, labels), mask_dtype(source, labels)
    return open_sink(path, source.shape[1:], dtype, source.geometry, blank, written)

"""python -m evaluation.upscale: pictures, enlarged, for people to look at."""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from evaluation.before_after import before_after, check_suffix
from evaluation.enlarging import enlarged
from evaluation.options import add_self_ensemble_option, output_file, output_folder
from evaluation.photo import OPAQUE, Photo, read_header, read_photo
from evaluation.saving import FORMATS, check_room, save
from evaluation.upscalers import BICUBIC, Bicubic, Network, Upscaler, load_network
from pipelines.command import cli
from pipelines.command.fields import argument_type
from pipelines.command.progress import Progress
from pipelines.pictures.formats import PICTURE_SUFFIXES
from trainer import files

# Of the shipped models the best at x2, x3 and x4.
DEFAULT_MODEL = "fsrcnn"
_MOST_SCALE = 64
_SCALE_IN_NAME = re.compile(r"(?<![a-z0-9])x(\d+)(?![a-z0-9])", re.IGNORECASE)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A picture to enlarge."""

    input: str
    output: str
    width: int
    height: int
    """Of the output, as those before."""


def main(argv: Sequence[str]) -> None:
    """Runs the command. Raises UsageError, and writes nothing, for wrong arguments or input."""
    arguments = parser().parse_args(argv)
    source, target, scale = arguments.input, arguments.output, arguments.scale
    is_folder = Path(source).is_dir()
    if is_folder:
        jobs = _folder_jobs(source, target, scale, arguments.overwrite)
    else:
        jobs = [_picture_job(source, target, scale, arguments.overwrite)]
    if arguments.compare is not None:
        check_suffix(arguments.compare)
        if is_folder or arguments.compare == target:
            raise cli.UsageError("--compare: it is a file of its own, for one picture")
        _check_free(source, arguments.compare, arguments.overwrite)
    if not jobs:
        return
    if is_folder:
        files.make_folder(target)
    try:
        upscaler = _upscaler(arguments.model, scale, arguments.self_ensemble)
        _enlarge(jobs, upscaler, scale)
    except KeyboardInterrupt:
        if is_folder and not arguments.overwrite:
            raise
        raise cli.Interrupted("the same command begins anew") from None
    if arguments.compare is not None:
        page = before_after(arguments.compare, read_photo(source), upscaler, scale)
        files.write(arguments.compare, page)
        sys.stdout.write(f"{arguments.compare}: before and after\n")


def parser() -> cli.ArgumentParser:
    """The command's options."""
    options = cli.ArgumentParser(
        "python -m evaluation.upscale",
        "Enlarges a picture, or all pictures of a folder that are not in the other yet. Depth, "
        "transparency, colour profile, resolution and EXIF are kept where the format has them.",
    )
    options.add_argument("input", metavar="INPUT", help="a picture, or a folder of them")
    options.add_argument(
        "output",
        metavar="OUTPUT",
        help=f"a file, whose suffix is its format ({' '.join(FORMATS)}), or a folder",
    )
    options.add_argument(
        "--model", default=DEFAULT_MODEL, help="run folder, .npz file, shipped model or bicubic"
    )
    options.add_argument(
        "--scale",
        type=argument_type(int, at_least=2, below=_MOST_SCALE + 1),
        default=2,
        metavar="N",
        help="of each side",
    )
    add_self_ensemble_option(options)
    options.add_argument("--overwrite", action="store_true", help="what is there already")
    options.add_argument(
        "--compare",
        type=output_file,
        metavar="FILE",
        help="the middle by bicubic and by the model: a page with a slider (.html) or a picture "
        "of both (.png)",
    )
    return options


def _picture_job(source: str, target: str, scale: int, overwrite: bool) -> Job:
    """Raises UsageError."""
    try:
        output_file(target)
    except argparse.ArgumentTypeError as error:
        raise cli.UsageError(f"OUTPUT: {error}") from None
    job = _job(source, target, scale)
    _check_free(source, target, overwrite)
    return job


def _folder_jobs(source: str, target: str, scale: int, overwrite: bool) -> list[Job]:
    """Of the pictures that are not there. Raises UsageError with all that cannot be enlarged."""
    try:
        output_folder(target)
    except argparse.ArgumentTypeError as error:
        raise cli.UsageError(f"OUTPUT: {error}") from None
    if PurePath(target).suffix.lower() in FORMATS:
        raise cli.UsageError(f"OUTPUT: {target} is a picture's name, but INPUT a folder: name one")
    if files.is_local(target) and Path(target).resolve() == Path(source).resolve():
        raise cli.UsageError(f"{target} is the folder of the pictures themselves: choose another")
    names = [
        name
        for name in files.names(source)
        if PurePath(name).suffix.lower() in PICTURE_SUFFIXES and not name.startswith(".")
    ]
    if not names:
        raise cli.UsageError(f"{source} has no picture ({' '.join(sorted(PICTURE_SUFFIXES))})")
    jobs: dict[str, Job] = {}
    faults = []
    there = 0
    for name in names:
        try:
            output = files.join(target, _output_name(name))
            if output in jobs:
                raise cli.UsageError(f"{name} and {jobs[output].input} would both be {output}")
            job = jobs[output] = _job(files.join(source, name), output, scale)
            if not overwrite and files.exists(output):
                _check_size(job)
                there += 1
                del jobs[output]
        except cli.UsageError as error:
            faults.append(str(error))
    if faults:
        raise cli.UsageError("; ".join(faults))
    if there:
        _logger.info(
            "%s has %d of %d already; --overwrite makes them anew", target, there, len(names)
        )
    return [*jobs.values()]


def _output_name(name: str) -> str:
    """The same where that format is written."""
    path = PurePath(name)
    return name if path.suffix.lower() in FORMATS else f"{path.stem}.png"


def _job(source: str, target: str, scale: int) -> Job:
    """Raises UsageError for what is no picture, and for what cannot be written."""
    header = read_header(source)
    job = Job(source, target, header.width * scale, header.height * scale)
    check_room(target, job.width, job.height, header.bytes_a_pixel)
    return job


def _check_free(source: str, target: str, overwrite: bool) -> None:
    """Raises UsageError where a file would be replaced unasked."""
    if overwrite or not files.exists(target):
        return
    is_source = files.is_local(target) and Path(target).samefile(source)
    what = "is INPUT itself" if is_source else "is there already"
    raise cli.UsageError(f"{target} {what}: choose another name, or --overwrite")


def _check_size(job: Job) -> None:
    """Raises UsageError where what is there was made in another way."""
    size = None
    with suppress(OSError), files.opened(job.output) as file, Image.open(file) as image:
        size = image.size
    if size != (job.width, job.height):
        found = "{}x{} pixels".format(*size) if size else "no picture"
        raise cli.UsageError(
            f"{job.output} is {found}, not {job.width}x{job.height}: choose another folder, or "
            "--overwrite"
        )


def _upscaler(model: str, scale: int, self_ensemble: bool) -> Upscaler:
    """Raises UsageError for a network that cannot do the scale; warns of one not made for it."""
    if model == BICUBIC:
        return Bicubic()
    network = Network(load_network(model), self_ensemble)
    trained = network.scales or tuple(map(int, _SCALE_IN_NAME.findall(PurePath(model).stem)))
    if scale in trained or not trained:
        return network
    named = ", ".join(f"x{number}" for number in trained)
    if len(network.model.weights) > 1 or network.model.network.scales:
        raise cli.UsageError(f"--scale {scale}: {network.name} has weights for {named} alone")
    _logger.warning("%s was trained for %s: expect a loss at x%d", network.name, named, scale)
    return network


def _enlarge(jobs: Sequence[Job], upscaler: Upscaler, scale: int) -> None:
    """One after the other. Raises WorkError, in the end, for those that fail."""
    failures = []
    done, note = 0, ""

    def on_tile(pixels: int) -> None:
        nonlocal done
        done += pixels
        progress.update(done, note)

    total = sum(job.width * job.height for job in jobs)
    with Progress("upscale", total, unit="pixels") as progress:
        for number, job in enumerate(jobs, 1):
            note = f"{PurePath(job.input).name}, {number} of {len(jobs)}"
            end = done + job.width * job.height
            try:
                photo = _read(job.input)
                save(job.output, enlarged(photo, upscaler, scale, on_tile), photo, scale)
            except (cli.UsageError, cli.WorkError) as error:
                if len(jobs) == 1:
                    raise
                failures.append(str(error))
                _logger.error("%s", error)
            else:
                size = f"{job.width}x{job.height} pixels"
                sys.stdout.write(f"{job.output}: {size} by {upscaler.name}\n")
            done = end
    if failures:
        raise cli.WorkError(f"{len(failures)} of {len(jobs)} failed: {'; '.join(failures)}")


def _read(path: str) -> Photo:
    photo = read_photo(path)
    if photo.white not in OPAQUE.values():
        _logger.warning(
            "%s: no sample of its 16 bits is above %d, which is taken for white", path, photo.white
        )
    return photo


if __name__ == "__main__":
    cli.run(main)

"""python -m pipelines.verify: whether a dataset folder holds what its dataset.json says."""

import os
import sys
from collections.abc import Sequence
from functools import partial

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.fields import argument_type


def main(arguments: Sequence[str]) -> None:
    """Checks the folder that the arguments name. Raises WorkError for the first wrong file."""
    options, beam_flags = parser().parse_known_args(arguments)
    # With Beam and pyarrow, which take seconds to import.
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.manifest import Fault, Manifest
    from pipelines.inspect.verification import verify

    folder = DatasetFolder(options.data.rstrip("/"))
    reach_stores(beam_flags)
    manifest = Manifest.load(folder.root)
    try:
        examples = verify(
            folder,
            manifest,
            begin=partial(reach_stores, beam_flags),
            decode=not options.quick,
            workers=options.workers,
        )
    except Fault as fault:
        raise cli.WorkError(
            f"{folder.root} is not the dataset that was built: {fault} (copy it once more, or "
            "build it anew: --overwrite)"
        ) from None
    depth = "names, checksums and totals" if options.quick else "everything"
    sys.stdout.write(f"{folder.root}: {examples:,} examples, {depth} as built\n")


def parser() -> cli.ArgumentParser:
    """The command's options."""
    result = cli.ArgumentParser(
        "python -m pipelines.verify",
        "Checks a finished dataset and names the first file that is wrong: names, sizes, "
        "checksums, totals, no picture or URL twice, and of every example its sizes and that its "
        "LR is the degradation of its HR. Options not listed here go to Beam "
        "(--s3_endpoint_url, ...).",
    )
    result.add_argument("data", metavar="DIR", help="dataset folder, local, gs:// or s3://")
    result.add_argument("--quick", action="store_true", help="without decoding any example")
    result.add_argument(
        "--workers",
        type=argument_type(int, at_least=1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes",
    )
    return result


if __name__ == "__main__":
    cli.run(main)

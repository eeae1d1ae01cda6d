"""python -m pipelines.export: a finished dataset as other trainers read it."""

import sys
from collections.abc import Sequence

from pipelines.build.engine import reach_stores
from pipelines.command import cli
from pipelines.command.stores import store_errors

_FORMATS = ("folders", "webdataset", "parquet")


def main(arguments: Sequence[str]) -> None:
    """Exports, or goes on with it. Raises UsageError or WorkError."""
    options, beam_flags = parser().parse_known_args(arguments)
    # With Beam and pyarrow, which take seconds to import.
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.manifest import Manifest
    from pipelines.inspect.export import export

    reach_stores(beam_flags)
    source = DatasetFolder(options.data.rstrip("/"))
    target = DatasetFolder(options.output.rstrip("/"))
    try:
        with store_errors(cli.WorkError):
            counts = export(source, Manifest.load(source.root), options.to, target)
    except OSError as error:
        raise cli.WorkError(f"cannot export to {target.root}: {error}") from None
    said = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    sys.stdout.write(f"{target.root}: {sum(counts.values()):,} examples ({said})\n")


def parser() -> cli.ArgumentParser:
    """The command's options."""
    result = cli.ArgumentParser(
        "python -m pipelines.export",
        "Writes a finished dataset in another form: folders of PNG pairs (as BasicSR, EDSR and "
        "their like read them), WebDataset tars, or Parquet with the pictures' bytes (as Hugging "
        "Face's datasets reads it). Interrupted, the same command goes on. Options not listed "
        "here go to Beam (--s3_endpoint_url, ...).",
    )
    result.add_argument("data", metavar="DIR", help="dataset folder, local, gs:// or s3://")
    result.add_argument("--to", required=True, choices=_FORMATS, help="the form")
    result.add_argument(
        "output", metavar="OUTPUT", help="a folder of its own, local, gs:// or s3://"
    )
    return result


if __name__ == "__main__":
    cli.run(main)

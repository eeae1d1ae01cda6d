"""python -m pipelines: from a list of URLs, pictures or an earlier build to a dataset folder."""

import os
import sys
from collections.abc import Sequence

from pipelines.arguments import NONE, crawl_options, dataset_options, list_source, parser
from pipelines.build.build import build
from pipelines.build.dry_run import describe
from pipelines.build.runners import beam_options, is_embedded, refuse_local_paths, with_option_file
from pipelines.command import cli
from pipelines.dataset.folder import DatasetFolder
from pipelines.lists.originals import Originals


def main(arguments: Sequence[str]) -> None:
    """Builds the dataset that the arguments describe, or goes on with it."""
    arguments = with_option_file(arguments)
    options, rest = parser().parse_known_args(arguments)
    beam_flags = beam_options(rest, options.runner)
    source = list_source(options)
    earlier = source if isinstance(source, Originals) and options.originals is None else None
    dataset = dataset_options(options, earlier.options if earlier else None)  # --retry alone
    if not is_embedded(options.runner):
        refuse_local_paths(options.runner, rest, source.name, options.output)
    crawl = crawl_options(options, os.cpu_count() or 1 if is_embedded(options.runner) else None)
    if options.dry_run:
        sys.stdout.write(describe(source, dataset, crawl) + "\n")
        return
    folder = DatasetFolder(options.output.rstrip("/"))
    silence_s = float("inf") if is_embedded(options.runner) else options.silence
    build(
        folder,
        dataset,
        crawl,
        source,
        beam_flags,
        overwrite=options.overwrite,
        keep_originals=options.originals != NONE,
        silence_s=silence_s,
    )


if __name__ == "__main__":
    cli.run(main, leave=os._exit)  # gRPC's threads abort an ordinary exit one time in ten

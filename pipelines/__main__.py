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
    if isinstance(source, Originals) and options.originals is None:  # --retry alone
        options = parser(source.options).parse_known_args(arguments)[0]
    dataset = dataset_options(options)
    crawlers = options.crawlers
    if is_embedded(options.runner):
        crawlers = crawlers or os.cpu_count() or 1
    else:
        refuse_local_paths(options.runner, rest, source.name, options.output)
        if crawlers is None:
            raise cli.UsageError(f"--crawlers is required with --runner {options.runner}")
    crawl = crawl_options(options, crawlers)
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

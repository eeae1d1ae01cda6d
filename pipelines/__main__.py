"""python -m pipelines: from a list of URLs, pictures or an earlier build to a dataset folder."""

import sys
from collections.abc import Sequence

from pipelines.command import cli


def main(arguments: Sequence[str]) -> None:
    """Builds the dataset that the arguments describe, or goes on with it."""
    # Ctrl-C is answered while modules are imported, too: Beam alone takes seconds.
    from pipelines.arguments import NONE, crawl_options, dataset_options, list_source, parser
    from pipelines.build.engine import Engine, with_option_file

    arguments = with_option_file(arguments)
    options, rest = parser().parse_known_args(arguments)
    if options.verbose:
        cli.log_more()
    # --help need not wait for Beam.
    from pipelines.build.build import build
    from pipelines.build.dry_run import describe
    from pipelines.dataset.folder import DatasetFolder
    from pipelines.dataset.options import AT_HAND, DatasetOptions
    from pipelines.lists.originals import Originals

    engine = Engine.of(options.runner, rest, silence_s=options.silence)
    source = list_source(options)
    pictures = () if isinstance(source, Originals) else source.pictures
    engine.refuse_local_paths(*(pictures or [source.name]), options.output)
    if isinstance(source, Originals) and options.originals is None:  # --retry alone
        defaults = source.options
    else:
        defaults = AT_HAND if source.is_folder else DatasetOptions()
    dataset = dataset_options(options, defaults)
    crawl = crawl_options(options, engine.workers)
    if options.dry_run:
        sys.stdout.write(describe(source, dataset, crawl) + "\n")
        return
    engine.refuse_wrong_start(crawl.crawlers)
    folder = DatasetFolder(options.output.rstrip("/"))
    build(
        folder,
        dataset,
        crawl,
        source,
        engine,
        overwrite=options.overwrite,
        keep_originals=options.originals != NONE,
    )


if __name__ == "__main__":
    cli.run(main)

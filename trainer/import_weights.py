"""python -m trainer.import_weights: weights of another program -> a weights file (.npz)."""

import logging
from collections.abc import Sequence

from pipelines.command import cli
from pipelines.command.cli import UsageError
from pipelines.command.fields import argument_type
from trainer import files, foreign, layouts
from trainer.models import NETWORKS
from trainer.weights_file import write_weights

_SHOWN = 5
_logger = logging.getLogger("trainer")


def main(arguments: Sequence[str]) -> None:
    """Raises UsageError for a file that holds no such network in a known layout."""
    parser = cli.ArgumentParser(
        "python -m trainer.import_weights",
        "Writes weights that another program has trained as an .npz file, which goes wherever a "
        "run does. Of a .pth file nothing but tensors is unpickled.",
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="PyTorch's .pth, .safetensors, MATLAB's .mat or Keras's .h5")
    add("output", metavar="OUT.npz", type=cli.output_path, help="the file to write")
    add("--network", required=True, choices=tuple(NETWORKS), help="what was trained")
    add(
        "--scales",
        type=argument_type(tuple[int, ...], at_least=2),
        default=(),
        metavar="N,…",
        help="the scales it was trained for, written down with it (default: those that its layers "
        "can make, where they tell)",
    )
    add("--overwrite", action="store_true", help="replace OUT.npz where it is there")
    options = parser.parse_args(arguments)
    if options.output.exists() and not options.overwrite:
        raise UsageError(f"{options.output} is there already: use --overwrite")
    arrays = foreign.read_arrays(options.file)
    try:
        found = layouts.convert(options.network, arrays)
    except layouts.Unfit as error:
        raise UsageError(f"{options.file}: {error}") from None
    if found is None:
        known = ", ".join(layout.source for layout in layouts.LAYOUTS.get(options.network, ()))
        shown = ", ".join(
            f"{name} {list(array.shape)}" for name, array in list(arrays.items())[:_SHOWN]
        )
        raise UsageError(
            f"{options.file} is not {options.network} as it is known here (from "
            f"{known or 'nowhere'}): {shown}{', …' if len(arrays) > _SHOWN else ''}"
        )
    network = found.network
    made_for = options.scales or network.scales
    if other := sorted(set(made_for) - set(network.scales or made_for)):
        raise UsageError(f"{options.file}: these weights have no x{other[0]}: leave it out")
    files.write(str(options.output), write_weights(network, found.weights, made_for))
    _logger.info(
        "%s: %s of %s, %s weights, %s; from %s",
        options.output,
        network.name,
        "RGB" if network.channels == 3 else "Y",
        f"{sum(weight.size for weight in found.weights.values()):,}",
        "scales " + ",".join(map(str, made_for)) if made_for else "scales not told",
        found.layout.source,
    )


if __name__ == "__main__":
    cli.run(main)

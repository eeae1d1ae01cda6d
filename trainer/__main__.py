"""python -m trainer: options -> a trained run folder -> exit status."""

import logging
import os
from collections.abc import Sequence
from typing import Any

# TensorFlow leaves oneDNN off where a CPU lacks AVX-512, where SRCNN's step takes half with it.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from pipelines.command import cli
from pipelines.command.cli import UsageError, typed
from pipelines.command.fields import add_options, argument_type, given
from trainer import config as recipes
from trainer.config import Config
from trainer.models import NETWORKS

_logger = logging.getLogger("trainer")


def main(arguments: Sequence[str]) -> None:
    """Trains, or goes on with, the run that the arguments describe.

    Raises UsageError before anything is written, WorkError and Interrupted as trainer.loop.train.
    """
    options = _parser().parse_args(arguments)
    recipe, config = _recipe(options.config, given(Config, options))
    # With TensorFlow, which takes seconds to import.
    from trainer.training import run_training

    run_training(
        config,
        options.data,
        options.output,
        recipe=recipe,
        restart=options.restart,
        replicas=options.replicas,
    )


def _parser() -> cli.ArgumentParser:
    parser = cli.ArgumentParser(
        "python -m trainer",
        "Trains a super-resolution network; goes on by itself where RUN holds a checkpoint.",
    )
    add = parser.add_argument
    add("--data", required=True, metavar="DIR", help="dataset folder, local or s3://")
    add("--output", required=True, metavar="RUN", help="run folder, local or s3://")
    add(
        "--config",
        metavar="FILE.yaml",
        help="recipe: a YAML file or the name of one of trainer/configs (default: --model's, "
        f"without a GPU MODEL{recipes.FOR_CPU})",
    )
    add("--restart", action="store_true", help="begin again; the old run is kept as RUN.old-N")
    add(
        "--replicas",
        type=argument_type(int, at_least=1),
        metavar="N",
        help="GPUs to use, or logical CPU devices (default: every GPU, or the CPU as one)",
    )
    group = parser.add_argument_group(
        "the recipe",
        f"Each in place of the recipe's value; in brackets the values of {', '.join(NETWORKS)}.",
    )
    shipped = [recipes.build(name, {}) for name in NETWORKS]

    def values(name: str) -> str:
        return ", ".join(dict.fromkeys(typed(getattr(c, name)) or "none" for c in shipped))

    add_options(group, Config, lambda name: f"[{values(name)}]")
    return parser


def _recipe(recipe: str | None, options: dict[str, Any]) -> tuple[str, Config]:
    """Its name, and what it is with the options."""
    if recipe:
        return recipe, recipes.build(recipe, options)
    if "model" not in options:
        raise UsageError("--model or --config is needed (see python -m trainer --help)")
    import tensorflow as tf

    recipe = options["model"]
    for_cpu = recipes.RECIPES / f"{recipe}{recipes.FOR_CPU}.yaml"
    if for_cpu.is_file() and not tf.config.list_physical_devices("GPU"):
        recipe = for_cpu.stem
        _logger.info(
            "no GPU here: the recipe is %s, made for a CPU; --config %s is the article's own",
            recipe, options["model"],
        )  # fmt: skip
    return recipe, recipes.build(recipe, options)


if __name__ == "__main__":
    cli.run(main)

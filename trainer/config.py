"""What a training run is told: the recipe, its YAML form, and its checks.

A recipe is a YAML file of Config's fields; those it leaves out have the defaults below. Shipped
ones are in configs/, and a run's own config.yaml is complete.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipelines.command import fields
from pipelines.command.cli import UsageError, typed
from pipelines.command.fields import option
from trainer import files
from trainer.models import NETWORKS, Network, Options
from trainer.models.srcnn import KERNELS
from trainer.precision import has_fast_bfloat16

RECIPES = Path(__file__).parent / "configs"
MOST_TEXT_BYTES = 1 << 16
"""Of a recipe, or another description that a person could have written."""
FOR_CPU = "_article"
"""After a network's name: its recipe for the same data where there is no GPU."""


def _known_network(name: str) -> str:
    if not isinstance(name, str) or name not in NETWORKS:
        raise ValueError(f"must be one of {', '.join(NETWORKS)}, not {name!r}")
    return name


@dataclass(frozen=True)
class Config:
    """A recipe. Everything here but checkpoint_every (and mostly steps) decides the result.

    Raises UsageError for values out of range.
    """

    model: str = option("srcnn", "the network", metavar="|".join(NETWORKS), convert=_known_network)
    channels: Literal["rgb", "y"] = option("rgb", "what it sees; y: Y of MATLAB's rgb2ycbcr")
    kernels: str = option("9-1-5", f"SRCNN's kernel sizes: {', '.join(KERNELS)}")
    from_: str = option(
        "", "weights to begin with: a run folder, an .npz file or a shipped model; none: new ones"
    )
    init: Literal["he", "orthogonal"] = option(
        "he", "random kernels of the start: He's normal ones, or filters orthogonal to one another"
    )
    identity_start: bool = option(False, "the network starts by passing its input on")
    scales: tuple[int, ...] = option(
        (2, 3, 4), "trained scales, of those in the dataset", at_least=2
    )
    scale_per: Literal["batch", "crop"] = option("batch", "one random scale a batch or a crop")
    scale_weights: tuple[float, ...] = option(
        (),
        "of each scale in the loss, as 3,2,1; x4's error is about 3.3 times x2's; none: equal",
        above=0,
    )
    lr: Literal["stored", "luma", "rgb"] = option(
        "stored",
        "the dataset's LR, or as in the papers MATLAB's bicubic of the HR: of its Y, unrounded, or "
        "in RGB of 8 bits",
    )
    scale_augment: bool = option(
        False, "HR as it is or shrunk to 0.9, 0.8, 0.7 or 0.6 before LR is made (lr luma or rgb)"
    )
    patch_size: int = option(0, "side of the training patches, HR px; 0: whole crops", at_least=0)
    patches_per_crop: int = option(
        1, "random patches cut from a crop each time it is decoded", above=0
    )
    augment: bool = option(False, "random flips and right-angle turns")
    batch_size: int = option(40, "patches a step, over all replicas", above=0)
    steps: int = option(100_000, "training steps in total", above=0)
    loss: Literal["mse", "l1", "charbonnier"] = option(
        "mse", "mean over the values of error², of |error|, or of sqrt(error² + 0.001²)"
    )
    optimizer: Literal["adam", "adam_dct", "sgd"] = option(
        "adam", "Adam, Adam on the frequencies of each kernel, or SGD with momentum 0.9"
    )
    learning_rate: float = option(1e-4, "at the start", above=0)
    last_layer_factor: float = option(
        1.0, "the last layer's learning rate over that of the others", at_least=0
    )
    schedule: Literal["constant", "step", "cosine"] = option(
        "constant", "learning rate: constant, decay in steps, or a cosine to 0 at the last step"
    )
    decay_every: int = option(100_000, "steps between decays (schedule step)", above=0)
    decay_factor: float = option(0.1, "of one decay (schedule step)", above=0)
    weight_decay: float = option(
        0.0, "this times the weights is added to the gradients", at_least=0
    )
    clip_theta: float = option(
        0.0, "gradients are clipped to this / learning rate; 0: not", at_least=0
    )
    clip_norm: float = option(
        0.0, "gradients are scaled to at most this norm over all; 0: not", at_least=0
    )
    skip_above: float = option(
        10.0,
        "a step is skipped if its loss is this many times the mean of late; 0: only NaN",
        at_least=0,
    )
    average: float = option(
        0.0,
        "decay of the weights' average, which is validated and exported; 0: no average",
        at_least=0,
        below=1,
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto",
        "of the convolutions (weights and loss: float32); auto: bfloat16 for VDSR where the "
        "hardware has it, else float32",
    )
    seed: int = option(
        0, "of the initial weights and of every random choice of the input", at_least=0
    )
    log_every: int = option(100, "steps between two records of the training loss", above=0)
    validate_every: int = option(1_000, "steps between two validations", above=0)
    validation_crops: int = option(64, "crops of the validation split that are looked at", above=0)
    checkpoint_every: int = option(1_000, "steps between two checkpoints", above=0)

    def __post_init__(self) -> None:
        try:
            fields.check(self)
        except ValueError as error:
            raise UsageError(str(error)) from None
        _require(
            len(self.scale_weights) in (0, len(self.scales)),
            f"scale_weights are one number for each of the scales {typed(self.scales)}",
        )
        _require(self.lr != "luma" or self.channels == "y", "lr luma is for networks of channels y")
        _require(
            self.lr != "rgb" or self.channels == "rgb", "lr rgb is for networks of channels rgb"
        )
        _require(
            self.lr != "stored" or not self.scale_augment,
            "scale_augment is for lr luma and rgb: the dataset's LR is of the whole crop",
        )
        _require(
            self.model == "srcnn" or self.kernels == Options().kernels,
            f"kernels are SRCNN's, {self.model} has its own: leave --kernels out",
        )
        self.check_batch(1)
        if self.takes == "lr":
            self._check_scale()
        border_px = self.network().border_px * self.ratio
        _require(
            self.patch_size == 0 or self.patch_size > 2 * border_px,
            f"patch_size {self.patch_size} leaves nothing of the network's output: it needs more "
            f"than {2 * border_px} px",
        )

    def _check_scale(self) -> None:
        """Raises UsageError where a network that takes LR could not be trained."""
        _require(
            len(self.scales) == 1,
            f"{self.model} takes the LR picture and is trained for one scale: use --scales with "
            f"one of {typed(self.scales)}",
        )
        possible = self.network().scales
        _require(
            not possible or self.scales[0] in possible,
            f"{self.model} has no x{self.scales[0]}, but {typed(possible)}",
        )
        _require(
            self.whole(self.patch_size) == self.patch_size or self.patch_size == 0,
            f"patch_size {self.patch_size} has no whole LR at x{self.ratio}: use "
            f"{self.whole(self.patch_size)}",
        )

    def whole(self, size: int) -> int:
        """The largest size up to ``size``, of at least one LR pixel, with a whole LR."""
        return max(size // self.ratio, 1) * self.ratio

    def resolved(self) -> "Config":
        """With what auto means here: written down, so that a run goes on the same elsewhere."""
        if self.precision != "auto":
            return self
        fast = NETWORKS[self.model].stands_bfloat16 and has_fast_bfloat16()
        return dataclasses.replace(self, precision="bfloat16" if fast else "float32")

    def network(self) -> Network:
        """The network that the recipe asks for."""
        channels = 1 if self.channels == "y" else 3
        options = Options(channels, self.kernels, self.identity_start, self.scales[-1])
        try:
            return NETWORKS[self.model].from_options(options)
        except ValueError as error:
            raise UsageError(str(error)) from None

    @property
    def takes(self) -> str:
        """What the network takes: 'upscaled' or 'lr'."""
        return NETWORKS[self.model].takes

    @property
    def ratio(self) -> int:
        """Of HR's sides to those of the network's input."""
        return self.network().ratio(self.scales[-1])

    @property
    def shrink_factors(self) -> tuple[float, ...]:
        """Of the HR, each as often as another; first 1."""
        return (1.0, 0.9, 0.8, 0.7, 0.6) if self.scale_augment else (1.0,)

    def check_batch(self, replicas: int) -> None:
        """Raises UsageError where the batch does not divide, with the nearest that do."""
        unit = replicas * self.patches_per_crop
        if self.batch_size % unit:
            below = self.batch_size // unit * unit
            nearest = " or ".join(str(size) for size in (below, below + unit) if size)
            raise UsageError(
                f"a batch of {self.batch_size} is no multiple of {unit} (replicas x patches a "
                f"crop): use --batch-size {nearest}"
            )

    def identity(self) -> dict[str, Any]:
        """The fields that must not change when a run goes on.

        More steps are more of the same, unless the learning rate depends on how many there are.
        """
        free = {"checkpoint_every"} | ({"steps"} if self.schedule != "cosine" else set())
        return {name: value for name, value in self.to_yaml().items() if name not in free}

    def to_yaml(self) -> dict[str, Any]:
        """Plain values for config.yaml."""
        return fields.to_plain(self)


class _Loader(yaml.SafeLoader):
    """Without aliases, of which a short file can make a text of any length."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here")
        return super().compose_node(parent, index)


def read_values(path: str) -> dict[str, Any]:
    """The fields that a YAML file sets, checked and converted. Raises UsageError."""
    try:
        values = yaml.load(files.read(path, at_most=MOST_TEXT_BYTES), _Loader)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a recipe: it has no 'field: value' lines")
    try:
        return fields.read(Config, values)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def find_recipe(name: str) -> Path:
    """The file of that name, or the shipped recipe. Raises UsageError where there is neither."""
    shipped = RECIPES / f"{name}.yaml"
    for path in (Path(name), shipped):
        if path.is_file():
            return path
    names = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
    raise UsageError(f"there is no recipe {name}: give a YAML file, or one of {names}")


def build(recipe: str, options: Mapping[str, Any]) -> Config:
    """The recipe with the options that were given in place of its own values."""
    path = find_recipe(recipe)
    values = read_values(str(path))
    model = values.get("model", options.get("model"))
    if model != options.get("model", model):
        raise UsageError(f"--model {options['model']} and {path}, a recipe for {model}, disagree")
    return Config(**{**values, **options})


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)

"""The networks: one file each, and the registry that options, training and export go by."""

from collections.abc import Mapping

from trainer.models.network import Network, Options, Shape
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr

NETWORKS: Mapping[str, type[Network]] = {network.name: network for network in (Srcnn, Vdsr)}

__all__ = ["NETWORKS", "Network", "Options", "Shape", "recognise"]


def recognise(shapes: list[Shape]) -> Network | None:
    """The network whose weights (w1, b1, w2, b2, ...) have these shapes, or None."""
    candidates = (network.from_shapes(shapes) for network in NETWORKS.values())
    return next((network for network in candidates if network is not None), None)

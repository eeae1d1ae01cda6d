"""The networks: one file each, and the registry that options, training and export go by."""

from collections.abc import Mapping

from trainer.models.edsr import Edsr
from trainer.models.espcn import Espcn
from trainer.models.fsrcnn import Fsrcnn, FsrcnnS
from trainer.models.lapsrn import Lapsrn
from trainer.models.network import Network, Options, Shape
from trainer.models.pan import Pan
from trainer.models.srcnn import Srcnn
from trainer.models.vdsr import Vdsr

NETWORKS: dict[str, type[Network]] = {
    network.name: network for network in (Srcnn, Vdsr, Fsrcnn, FsrcnnS, Espcn, Lapsrn, Pan, Edsr)
}

__all__ = ["NETWORKS", "Network", "Options", "Shape", "recognise"]


def recognise(shapes: Mapping[str, Shape], name: str = "") -> Network | None:
    """The network, of that name if there is one, whose weights have these shapes, or None."""
    networks = [NETWORKS[name]] if name else NETWORKS.values()
    variants = (variant for network in networks for variant in network.variants())
    return next((variant for variant in variants if variant.shapes == shapes), None)

"""Natural colour photographs that installed packages ship, under ids of the Fall 2011 list."""

from dataclasses import dataclass
from importlib.resources import files


@dataclass(frozen=True)
class Photo:
    """A photograph inside an installed package."""

    image_id: str
    package: str
    path: str

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.rpartition("/")[2]

    def read(self) -> bytes:
        """The file as it is shipped."""
        return files(self.package).joinpath(self.path).read_bytes()


PHOTOS = (
    Photo("n02123045_1", "skimage", "data/chelsea.png"),
    Photo("n03790512_1", "skimage", "data/motorcycle_left.png"),
    Photo("n04099429_1", "skimage", "data/rocket.jpg"),
    Photo("n04407686_1", "sklearn", "datasets/images/china.jpg"),
    Photo("n07929519_1", "skimage", "data/coffee.png"),
    Photo("n09818022_1", "skimage", "data/astronaut.png"),
    Photo("n10599806_1", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
    Photo("n11669921_1", "sklearn", "datasets/images/flower.jpg"),
)
SMALL = Photo("n03017168_1", "skimage", "data/chessboard_RGB.png")

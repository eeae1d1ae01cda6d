"""Why a picture cannot be used."""

from pipelines.dataset.outcome import Outcome


class PictureError(Exception):
    """A picture that cannot be used, and why."""

    def __init__(
        self, outcome: Outcome, detail: str | None = None, size: tuple[int, int] | None = None
    ) -> None:
        super().__init__(detail or outcome)
        self.outcome, self.detail, self.size = outcome, detail, size

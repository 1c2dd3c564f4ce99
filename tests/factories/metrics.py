"""How metrics grow in a test: they count for the whole process, so no test knows where they start."""

from app.metrics.definitions import REGISTRY
from app.metrics.observations import move_observations


def figure(name: str, **labels: str) -> float:
    """The value now, with all that was noted."""
    move_observations()
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Growth:
    """`Growth((name, labels), …)` before, and `growth()` after: how much each has grown."""

    def __init__(self, *figures: tuple[str, dict[str, str]]) -> None:
        self._before = [(name, labels, figure(name, **labels)) for name, labels in figures]

    def __call__(self) -> list[float]:
        return [figure(name, **labels) - before for name, labels, before in self._before]

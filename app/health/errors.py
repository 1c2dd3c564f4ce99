"""How the service is not ready."""

from app.errors import Unavailable


class SharedBehind(Unavailable):
    """Schema shared is missing or older than this code supports: run `python -m scripts.migrate`. Only `/readyz`
    answers it.
    """

    code = "shared_behind"

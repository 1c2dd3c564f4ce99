"""The version of the service and of its API: the newest dated heading of CHANGELOG.md."""

from typing import Final

VERSION: Final = "0.2.0"

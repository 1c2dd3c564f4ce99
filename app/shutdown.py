"""Whether this process has been told to stop. Answers without an end watch it, so that a restart need not wait."""

from threading import Event
from typing import Final

is_stopping: Final = Event()

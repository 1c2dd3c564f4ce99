"""The kind of command that all scripts are: it ends on SIGTERM as on Ctrl-C, and an error is one line and an exit code,
never a stack trace.
"""

from typing import Any

import rich_click as click

from app.shutdown import ending_on_sigterm
from scripts.support.console import exit_on_error


class Script(click.RichCommand):
    """A script's command. A script that drains on SIGTERM installs a handler of its own."""

    def invoke(self, ctx: click.Context) -> Any:
        with ending_on_sigterm(), exit_on_error():
            return super().invoke(ctx)

"""The statements of a repair, run in an open db transaction and noted for the report."""

from sqlalchemy import Connection

from tenant_schemas.roles import send


class Changes:
    """Runs statements and notes them in `shown`. A rollback undoes them and leaves the notes: so a dry run shows what
    a repair does.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.shown: list[str] = []

    def run(self, statement: str) -> None:
        """Raises psycopg's errors."""
        send(self.connection, statement)
        self.note(statement)

    def note(self, shown: str) -> None:
        self.shown.append(shown)

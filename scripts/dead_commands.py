"""Show the dead letters of all tenants' commands, and run or delete some of them. It needs RabbitMQ (BROKER_URL).

A dead letter is named by its contents. --run does what scripts.commands does with a message of its sender: the key must
still be valid, and a command that was run before has no second effect. A dead letter goes once its command has an
outcome, also a refusal; the sender gets the outcome as an event.

Examples:
    python -m scripts.dead_commands
    python -m scripts.dead_commands --reason delivery_limit --run
    python -m scripts.dead_commands --letter 3f2a9c1b77d0 --json
    python -m scripts.dead_commands --letter 3f2a9c1b77d0 --delete

Prints the chosen dead letters and what became of them: listed, deleted, completed, refused, or why it was not run.

Exit codes: 0 done; 1 a chosen command has no outcome yet, or the broker is away; 2 bad arguments or settings.
"""

import asyncio
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import rich_click as click
from flask import Flask

from app import create_app
from app.queue_commands.handler import DeadLetter as NotRun
from app.queue_commands.handler import Wait, handle
from scripts.support.console import (
    BAD_ARGUMENTS,
    FAILED,
    exit_with,
    json_option,
    one_line,
    settings_or_exit,
    show_json,
    show_table,
)
from scripts.support.script import Script
from tenant_schemas.flask import EXTENSION

if TYPE_CHECKING:
    from app.queue_commands.dead_letters import DeadLetter

LISTED, DELETED = "listed", "deleted"
COLUMNS = ("letter", "reason", "tenant", "sender", "command", "detail", "now")


@dataclass(slots=True)
class Operator:
    """Decides what becomes of each dead letter. `app` is None for one who does not run them."""

    letters: tuple[str, ...]
    reasons: tuple[str, ...]
    app: Flask | None
    deletes: bool
    shown: list[dict[str, object]] = field(default_factory=list)
    failed: bool = False

    async def is_done(self, letter: "DeadLetter") -> bool:
        if (self.letters and letter.letter not in self.letters) or (self.reasons and letter.reason not in self.reasons):
            return False
        now, is_done = DELETED if self.deletes else LISTED, self.deletes
        if self.app:
            now, is_done = await asyncio.to_thread(run_again, self.app, letter)
            self.failed |= not is_done
        body = letter.body.decode(errors="backslashreplace")
        told = (
            letter.letter,
            letter.reason,
            letter.tenant_id,
            letter.user_id,
            letter.command,
            letter.detail,
            now,
            body,
        )
        self.shown.append(dict(zip((*COLUMNS, "body"), told, strict=True)))
        return is_done


@click.command(cls=Script, help=__doc__)
@click.option("--letter", "letters", metavar="LETTER", multiple=True, help="Only this one; may be repeated.")
@click.option("--reason", "reasons", metavar="REASON", multiple=True, help="Only with this reason; may be repeated.")
@click.option("--run", "runs", is_flag=True, help="Run the chosen commands again.")
@click.option("--delete", "deletes", is_flag=True, help="Delete the chosen dead letters.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=1000, show_default=True, help="Look at the oldest ones."
)
@json_option
def main(
    *, letters: tuple[str, ...], reasons: tuple[str, ...], runs: bool, deletes: bool, limit: int, as_json: bool
) -> None:
    settings = settings_or_exit()
    if not settings.broker_url.startswith(("amqp://", "amqps://")):
        exit_with("Commands need RabbitMQ: set BROKER_URL to amqp:// or amqps://.", BAD_ARGUMENTS)
    if (runs and deletes) or ((runs or deletes) and not letters and not reasons):
        exit_with("Choose dead letters by --letter or --reason, and either --run or --delete.", BAD_ARGUMENTS)
    app = create_app(replace(settings, log_level="critical")) if runs else None  # The result says what its log would.
    operator = Operator(letters, reasons, app, deletes)
    with closing(app.extensions[EXTENSION]) if app else nullcontext():
        lost = _visit(settings.broker_url, limit, operator)
    if as_json:
        show_json(operator.shown)
    else:
        show_table("Dead commands", COLUMNS, [[each[name] for name in COLUMNS] for each in operator.shown])
    if lost:
        exit_with(lost, FAILED)
    if operator.failed:
        exit_with("Not all of them have an outcome.", FAILED)


def run_again(app: Flask, letter: "DeadLetter") -> tuple[str, bool]:
    """What became of the command, and whether it has an outcome, which is then committed."""
    if letter.tenant_id is None or not letter.is_whole:
        return "not run: no queue of a tenant is named, or the body is cut", False
    try:
        verdict = handle(app, letter.tenant_id, letter.user_id, letter.body)
    except Exception as error:  # noqa: BLE001  A fault of the service, whatever it is: the dead letter stays.
        return f"not run: {type(error).__name__}: {one_line(error)}", False
    if isinstance(verdict, Wait):
        return f"not run: it has to wait {verdict.seconds:.0f} s, for its limit, its tenant or the database", False
    if isinstance(verdict, NotRun):
        return f"not run: {verdict.reason}: {verdict.detail}", False
    return f"{verdict.outcome} {verdict.code or ''}".strip(), True


def _visit(url: str, limit: int, operator: Operator) -> str:
    """Returns an empty string, or how the broker was lost."""
    try:
        from aio_pika.exceptions import CONNECTION_EXCEPTIONS  # noqa: PLC0415  Its library is an extra.

        from app.queue_commands.dead_letters import visit_dead_letters  # noqa: PLC0415
    except ModuleNotFoundError:
        exit_with("The library of RabbitMQ is not installed: pip install 'schema-wallet[rabbitmq]'.", BAD_ARGUMENTS)
    try:
        asyncio.run(visit_dead_letters(url, limit, operator.is_done))
    except (*CONNECTION_EXCEPTIONS, TimeoutError) as error:
        return (
            f"The connection to the broker failed: {one_line(error)}. If the broker answers, then the next dead letter "
            "can't be decoded here: docs/operations.md says how to take it away."
        )
    return ""


if __name__ == "__main__":
    main()

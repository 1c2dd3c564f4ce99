"""Each command has its data, and both of its answers are events of the feed."""

from app.events.models import COMMAND_VERBS, EVENT_TYPES
from app.queue_commands.schemas import DATA_OF


def test_each_verb_has_data_and_two_answers() -> None:
    assert set(DATA_OF) == set(COMMAND_VERBS)
    assert {f"wallet.{verb}.{outcome}.v1" for verb in DATA_OF for outcome in ("completed", "refused")} <= set(
        EVENT_TYPES
    )

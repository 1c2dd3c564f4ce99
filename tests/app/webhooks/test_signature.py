"""Standard Webhooks' own library accepts what we sign, and a rotation loses no message."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.webhooks.signature import secret_of, signed_headers, signing_epochs
from tests.factories.api import ID_OF_NOTHING

MASTER = "a master secret for tests, of 32 characters or more"
TENANT = UUID(int=7)
BODY = b'{"type":"wallet.payment.posted.v1","text":"\xc5\xa0ljivovica"}'


def headers(*epochs: int, body: bytes = BODY, endpoint: UUID = ID_OF_NOTHING) -> dict[str, str]:
    now = int(datetime.now(UTC).timestamp())
    return signed_headers(MASTER, TENANT, endpoint, epochs, message_id="1", timestamp=now, body=body)


def test_the_signature_is_the_standards() -> None:
    webhook = Webhook(secret_of(MASTER, TENANT, ID_OF_NOTHING, 1))
    assert webhook.verify(BODY, headers(1))["text"] == "Šljivovica"
    with pytest.raises(WebhookVerificationError):
        webhook.verify(BODY + b" ", headers(1))


def test_a_secret_belongs_to_one_tenant_endpoint_epoch_and_installation() -> None:
    """A restore as another tenant copies the ids of endpoints."""
    made = {
        secret_of(master, tenant, endpoint, epoch)
        for tenant in (TENANT, UUID(int=8))
        for master in (MASTER, MASTER + "2")
        for endpoint in (ID_OF_NOTHING, UUID(int=1))
        for epoch in (1, 2)
    }
    assert len(made) == 16


def test_both_secrets_verify_for_a_day_after_a_rotation() -> None:
    rotated_at = datetime.now(UTC)
    during, after = (signing_epochs(2, [rotated_at], rotated_at + timedelta(hours=hours)) for hours in (23, 24))
    assert (during, after) == ((2, 1), (2,))
    assert signing_epochs(1, [], rotated_at) == (1,)
    again = [rotated_at, rotated_at - timedelta(hours=2), rotated_at - timedelta(hours=25)]
    assert signing_epochs(4, again, rotated_at) == (4, 3, 2), "a second rotation ends no secret early"
    for epoch in (1, 2):
        Webhook(secret_of(MASTER, TENANT, ID_OF_NOTHING, epoch)).verify(BODY, headers(*during))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(MASTER, TENANT, ID_OF_NOTHING, 1)).verify(BODY, headers(*after))

"""The secrets and signatures of webhooks, by Standard Webhooks 1.0.0.

A secret is an HMAC of the tenant's id, the endpoint's id and the epoch of its secret, by TENANT_SECRET. So no secret is
stored, a higher epoch gives a new one, and an endpoint that a restore copied into another tenant has other secrets.
"""

import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

SECRET_PREFIX: Final = "whsec_"  # noqa: S105
OVERLAP: Final = timedelta(hours=24)  # for how long a replaced secret signs too


def secret_of(master_secret: str, tenant_id: UUID, endpoint_id: UUID, epoch: int) -> str:
    """The secret as consumers enter it: `whsec_`, and 32 bytes in base64."""
    return SECRET_PREFIX + b64encode(_key(master_secret, tenant_id, endpoint_id, epoch)).decode()


def signing_epochs(epoch: int, replaced_at: Sequence[datetime], now: datetime) -> tuple[int, ...]:
    """The epochs whose secrets sign now: the current one, and each that was replaced less than 24 hours ago.
    `replaced_at` has the newest first.
    """
    recent = [moment for moment in replaced_at if now < moment + OVERLAP]
    return tuple(range(epoch, epoch - len(recent) - 1, -1))


def signed_headers(
    master_secret: str,
    tenant_id: UUID,
    endpoint_id: UUID,
    epochs: Iterable[int],
    *,
    message_id: str,
    timestamp: int,
    body: bytes,
) -> dict[str, str]:
    """The three headers of a message. `body` must be the bytes that are sent."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digests = (hmac.digest(_key(master_secret, tenant_id, endpoint_id, epoch), signed, "sha256") for epoch in epochs)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests),
    }


def _key(master_secret: str, tenant_id: UUID, endpoint_id: UUID, epoch: int) -> bytes:
    return hmac.digest(master_secret.encode(), f"webhook:{tenant_id}:{endpoint_id}:{epoch}".encode(), "sha256")

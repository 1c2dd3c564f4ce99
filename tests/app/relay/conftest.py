"""A tenant of a test's own, and a consumer of webhooks."""

from tests.app.webhooks.conftest import (  # noqa: F401
    consumer,
    hooked,
    hooks_certificate,
    hooks_sender,
    served_consumer,
)
from tests.factories.tenants import mark, mark_template  # noqa: F401

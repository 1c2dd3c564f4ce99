"""A tenant of a test's own."""

from tests.factories.tenants import mark, mark_template  # noqa: F401

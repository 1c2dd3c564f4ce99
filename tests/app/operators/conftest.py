"""The installation of `tests/app/tenants/`, whose operator reads across tenants here."""

from tests.app.tenants.conftest import own

__all__ = ["own"]

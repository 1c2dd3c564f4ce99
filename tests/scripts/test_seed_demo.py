"""`scripts.seed_demo` makes demo data on the embedded server only."""

import pytest

from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Tenants may log in themselves and through the pool."""
    return "shared"


def test_demo_data_is_refused_on_a_server_of_ones_own(run: Run) -> None:
    assert run("seed_demo").exit_code == 2

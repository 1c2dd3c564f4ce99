"""`scripts.seed_demo` makes demo data on the embedded server only."""

import pytest

from scripts.seed_demo import demo_password
from tests.factories.script_runner import Run


@pytest.fixture
def tenant_logins() -> str:
    """Tenants may log in themselves and through the pool."""
    return "shared"


def test_demo_data_is_refused_on_a_server_of_ones_own(run: Run) -> None:
    assert run("seed_demo").exit_code == 2


@pytest.mark.parametrize(("password", "exit_code"), [("x" * 11, 2), ("x" * 12, None)])
def test_the_demo_password_follows_the_rules_of_http(
    monkeypatch: pytest.MonkeyPatch, password: str, exit_code: int | None
) -> None:
    monkeypatch.setenv("DEMO_PASSWORD", password)
    if exit_code is None:
        assert demo_password() == password
    else:
        with pytest.raises(SystemExit) as caught:
            demo_password()
        assert caught.value.code == exit_code

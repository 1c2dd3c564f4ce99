"""The service beside a model of its rules. pytest explains failed assertions in these modules too."""

import pytest

pytest.register_assert_rewrite(*(f"tests.app.model.{name}" for name in ("comparison", "picture", "real")))

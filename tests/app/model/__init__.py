"""The service beside a model of its rules. What pytest says of a failed assertion, it says for these modules too."""

import pytest

pytest.register_assert_rewrite(*(f"tests.app.model.{name}" for name in ("comparison", "picture", "real")))

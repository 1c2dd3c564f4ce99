"""Keys derived from SECRET_KEY differ by purpose and by installation."""

import pytest
from flask import Flask

from app.current import current_app
from app.derived_keys import derived_key


def test_a_key_is_of_one_purpose_and_one_installation(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    with app.app_context():
        first = derived_key("one purpose")
        assert derived_key("one purpose") == first != derived_key("another purpose")
        monkeypatch.setitem(current_app.config, "SECRET_KEY", "another key for tests, of 32 characters")
        assert derived_key("one purpose") != first
        assert len(first) == 32

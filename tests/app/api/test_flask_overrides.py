"""JSON of the application."""

from uuid import UUID

from flask import Flask, jsonify

from app.api.flask_overrides import FastJson


def test_json_is_written_in_utf_8_and_read_back(app: Flask) -> None:
    value = {"đ": ["𝕏", 1, None, True, {"a": "\n"}], "id": str(UUID(int=1))}
    json = FastJson(app)
    assert json.loads(json.dumps(value)) == value
    with app.test_request_context():
        answer = jsonify(value)
        assert answer.mimetype == "application/json"
        assert "đ".encode() in answer.data
        assert b" " not in answer.data

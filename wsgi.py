"""The WSGI entry point: `gunicorn wsgi:app`."""

from app import create_app
from app.holds.timer import start_timer

app = create_app()
start_timer(app, app.config["HOLD_EXPIRY_SECONDS"])

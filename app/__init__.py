"""The wallet service: one Flask application for many tenants."""

from flask import Flask, Response

from app import cli, config, db, docs, logs, problems, tenancy
from app.auth.routes import blueprint as auth
from app.auth.tokens import TokenMint
from app.bulk.routes import blueprint as bulk
from app.catalog.routes import blueprint as catalog
from app.credit.routes import blueprint as credit
from app.health.routes import blueprint as health
from app.holds.routes import blueprint as holds
from app.http import FastJson, NoSessions
from app.ledger.routes import blueprint as ledger
from app.members.routes import blueprint as members
from app.openings import models as _openings  # noqa: F401
from app.orders.routes import blueprint as orders
from app.statements.routes import blueprint as statements
from app.wallets.routes import blueprint as wallets


def create_app(settings: config.Settings | None = None) -> Flask:
    """The application, with its settings from the environment unless given. Connects to nothing yet."""
    settings = settings or config.read_settings()
    app = Flask("app", static_folder=None)
    # Or `/api/km//wallet` would be redirected to `/api/wallet`, and lose its tenant on the way.
    app.url_map.merge_slashes = False
    app.json = FastJson(app)
    app.session_interface = NoSessions()
    app.config.update(SECRET_KEY=settings.secret_key, MAX_CONTENT_LENGTH=settings.max_body_bytes)
    app.config["HOLD_EXPIRY_SECONDS"] = settings.hold_expiry_seconds
    app.extensions["token_mint"] = TokenMint(settings.secret_key, settings.token_seconds)

    logs.init_app(app, settings.log_level)
    app.after_request(_protect)
    db.init_app(app, settings)
    problems.register(app)

    api = docs.make_api(app)
    for feature in (auth, members, wallets, ledger, holds, catalog, orders, statements, credit, bulk):
        api.register_blueprint(feature)
    app.register_blueprint(health)

    tenancy.init_app(app, settings)
    cli.init_app(app)
    return app


def _protect(response: Response) -> Response:
    """Answers are for the caller alone, and are what they say they are."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response

"""The wallet service: one Flask application for many tenants."""

from flask import Flask

from app import commands, config, db, limits, logging_setup, tenant_visits, tracing
from app.accounts.routes import blueprint as accounts
from app.api import answers, cors, deprecation, openapi, problem_codes, problems
from app.api.application import Application
from app.api.flask_overrides import FastJson, NoSessions
from app.api_keys.routes import blueprint as api_keys
from app.audit import denials, operator_reads
from app.audit.routes import blueprint as audit
from app.auth import access, key_uses
from app.auth.oidc import OpenIdProvider
from app.auth.openapi import SECURITY, SECURITY_SCHEMES
from app.auth.routes import blueprint as auth
from app.auth.routes import well_known
from app.auth.second_factor.routes import blueprint as second_factor
from app.auth.tokens import TokenMint
from app.catalogue.routes import blueprint as catalogue
from app.credit.routes import blueprint as credit
from app.events.routes import blueprint as events
from app.health.routes import blueprint as health
from app.holds.routes import blueprint as holds
from app.ledger import group_posting
from app.ledger.bulk.routes import blueprint as bulk
from app.ledger.routes import blueprint as ledger
from app.limits import models as _limits  # noqa: F401
from app.mail import worker as mail_worker
from app.members.invitations.routes import blueprint as invitations
from app.members.routes import blueprint as members
from app.metrics import endpoint, observations
from app.opening_balances import models as _openings  # noqa: F401
from app.operators import routes as _operators  # noqa: F401  It adds a route to the blueprint of wallets.
from app.orders.routes import blueprint as orders
from app.prover import models as _proofs  # noqa: F401
from app.queue_commands import models as _commands  # noqa: F401
from app.relay import models as _relay  # noqa: F401
from app.signing_keys import key_source
from app.statements.documents import worker as document_worker
from app.statements.documents.routes import blueprint as documents
from app.statements.routes import blueprint as statements
from app.streams import routes as streams
from app.tenants import provisioning_worker
from app.tenants.routes import blueprint as tenants
from app.wallets.routes import blueprint as wallets
from app.webhooks import delivery as webhook_delivery
from app.webhooks.openapi import describe_webhooks
from app.webhooks.routes import blueprint as webhooks


def create_app(settings: config.Settings | None = None) -> Flask:
    """The application, with its settings from the environment unless given. Connects to nothing yet."""
    settings = settings or config.read_settings()
    app = Application("app", static_folder=None)
    # Or `/api/km//wallet` would be redirected to `/api/wallet`, and lose its tenant on the way.
    app.url_map.merge_slashes = False
    app.json = FastJson(app)
    app.session_interface = NoSessions()
    app.config.update(SECRET_KEY=settings.secret_key, MAX_CONTENT_LENGTH=settings.max_body_bytes)
    app.config["HOLD_EXPIRY_SECONDS"] = settings.hold_expiry_seconds
    app.config["REGISTRY_WATCH_SECONDS"] = settings.registry_watch_seconds
    app.config["REFRESH_SECONDS"] = settings.refresh_seconds
    app.config["REFRESH_OVERLAP_SECONDS"] = settings.refresh_overlap_seconds
    _configure_accounts(app, settings)
    keys_of_tokens = key_source(settings.signing_keys_file, settings.signing_keys)
    app.extensions["token_mint"] = TokenMint(keys_of_tokens, settings.token_seconds)
    if settings.oidc_issuer:
        app.extensions["openid_provider"] = OpenIdProvider(
            settings.oidc_issuer, settings.oidc_audience, settings.oidc_algorithms
        )

    if settings.metrics_port or settings.metrics_token:
        observations.init_app(app)  # Before the log: what is registered first runs last, when the status is final.
    logging_setup.init_app(app, settings.log_level)
    app.after_request(answers.protect)
    cors.init_app(app, settings.cors_origins)
    db.init_app(app, settings)
    tenant_visits.init_app(app, settings)
    provisioning_worker.init_app(app, settings)
    document_worker.init_app(app, settings)
    mail_worker.init_app(app, settings)
    streams.init_app(app, settings)
    webhook_delivery.init_app(app, settings)
    key_uses.init_app(app)
    problems.register(app)

    api = openapi.make_api(app, SECURITY_SCHEMES, SECURITY)
    of_members = (auth, accounts, second_factor, wallets, ledger, holds, catalogue, orders, statements, documents)
    of_staff = (members, invitations, credit, bulk, audit, api_keys, events, webhooks, tenants)
    for feature in (*of_members, *of_staff, streams.blueprint):
        api.register_blueprint(feature)
    describe_webhooks(api)
    app.register_blueprint(problem_codes.blueprint)
    app.register_blueprint(health)
    app.register_blueprint(well_known)
    deprecation.init_app(app)

    group_posting.init_app(app, settings)
    limits.init_app(app, settings)
    access.init_app(app, settings)
    operator_reads.init_app(app)
    denials.init_app(app)
    commands.init_app(app)
    tracing.init_app(app, settings)
    endpoint.init_app(app, settings)
    return app


def _configure_accounts(app: Flask, settings: config.Settings) -> None:
    app.config.update(
        MAIL_SECONDS=settings.mail_seconds,
        INVITATION_SECONDS=settings.invitation_seconds,
        RESET_SECONDS=settings.reset_seconds,
        EMAIL_CHANGE_SECONDS=settings.email_change_seconds,
        MAIL_RATE_LIMIT=settings.mail_rate_limit,
        ACCOUNT_MAIL_LIMIT=settings.account_mail_limit,
        ACCOUNT_RATE_LIMIT=settings.account_rate_limit,
        INVITATION_RATE_LIMIT=settings.invitation_rate_limit,
        SECOND_FACTOR_RATE_LIMIT=settings.second_factor_rate_limit,
        SECOND_FACTOR_DAILY_LIMIT=settings.second_factor_daily_limit,
        OPERATOR_SECOND_FACTOR=settings.operator_second_factor,
    )

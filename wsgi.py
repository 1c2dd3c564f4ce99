"""The WSGI entry point: `gunicorn wsgi:app`."""

import atexit
import gc
import os

from app import create_app
from app.audit.refusal_worker import start_refusal_worker
from app.auth.key_uses import start_key_use_worker
from app.config import read_settings
from app.holds.expiry_worker import start_expiry_worker
from app.mail.worker import start_mail_worker
from app.metrics.worker import start_metrics_worker
from app.secret_checks import refuse_wrong_secret
from app.statements.documents.expiry_worker import start_document_expiry_worker
from app.statements.documents.worker import start_document_worker
from app.tenants.provisioning_worker import start_provisioner
from tenant_schemas.flask import EXTENSION
from tenant_schemas.registry_watcher import start_registry_watcher

if "FLASK_RUN_FROM_CLI" in os.environ:
    atexit.register(gc.freeze)  # A command ends without looking for garbage, as those of `scripts`.
settings = read_settings()
refuse_wrong_secret(settings)
app = create_app(settings)
if "FLASK_RUN_FROM_CLI" not in os.environ:  # A flask command starts no workers.
    start_expiry_worker(app, app.config["HOLD_EXPIRY_SECONDS"])
    start_provisioner(app)
    start_document_worker(app)
    start_document_expiry_worker(app)
    start_refusal_worker(app)
    start_mail_worker(app, app.config["MAIL_SECONDS"])
    start_key_use_worker(app)
    start_metrics_worker(app)
    start_registry_watcher(app.extensions[EXTENSION], app.config["REGISTRY_WATCH_SECONDS"])

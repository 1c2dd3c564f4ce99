"""`scripts.migrate` with other histories than the repository's: `python -m tests.faults.migrator SETUP_CFG …`.

It is a separate program so that it can be killed.
"""

import sys
from pathlib import Path

from app.db import ROLES
from scripts import migrate
from tenant_schemas.migrations.history import Migrations

vars(migrate)["MIGRATIONS"] = Migrations(Path(sys.argv.pop(1)), ROLES)
migrate.main()

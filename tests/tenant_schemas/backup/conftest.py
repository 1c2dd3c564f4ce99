"""A bundle of the tenant km, which shares its database with other tests."""

from pathlib import Path

import pytest
from flask import Flask

from tenant_schemas.backup.backup import back_up
from tenant_schemas.backup.bundle import Bundle
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.testing.plugin import Database
from tests.factories.backups import source_of
from tests.factories.people import People


@pytest.fixture
def bundle(database: Database, app: Flask, tmp_path: Path) -> Bundle:
    people = People(app)
    people.wallet(people.make(km="member", name="Amra"), "km", balance_minor=77)
    return back_up(source_of(database), "km", BackupOptions(folder=tmp_path))

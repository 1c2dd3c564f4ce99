"""Rows that are not those of the manifest are found, also if they are loaded without an error."""

from dataclasses import replace
from pathlib import Path

import pytest

from tenant_schemas.errors import VerificationFailed
from tenant_schemas.restore.shared_verify import verify_shared
from tenant_schemas.testing.plugin import Database
from tests.factories.bundles import destination
from tests.factories.installations import take_shared


@pytest.mark.parametrize("changed", [{"rows": 7}, {"hash": "0" * 64}])
def test_another_number_or_hash_is_refused(database: Database, tmp_path: Path, changed: dict[str, object]) -> None:
    bundle = take_shared(database, tmp_path)
    tables = tuple(
        replace(file, **changed) if file.name == "tenants" else file  # type: ignore[arg-type]
        for file in bundle.manifest.tables
    )
    forged = replace(bundle, manifest=replace(bundle.manifest, tables=tables))
    with pytest.raises(VerificationFailed, match=r"shared\.tenants has other rows"):
        verify_shared(destination(database), forged)

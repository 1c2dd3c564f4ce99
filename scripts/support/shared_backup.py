"""The bundle of the schema shared, as one line of the report of `backup_tenant` and `verify_backup`."""

from pathlib import Path
from typing import Any

from app.shared_policy import SHARED_POLICY
from tenant_schemas.backup.retention import Keep
from tenant_schemas.backup.shared_backup import back_up_shared
from tenant_schemas.backup.shared_bundle import SHARED_BUNDLE
from tenant_schemas.backup.shared_retention import find_outdated_shared, keep_newest_shared
from tenant_schemas.backup.source import Source
from tenant_schemas.backup.writer import BackupOptions
from tenant_schemas.errors import BackupError, TenancyError


def shared_report(source: Source, options: BackupOptions, keep: Keep | None) -> dict[str, Any]:
    """Write the bundle and return its result. Deletes older bundles if the new one is complete."""
    report: dict[str, Any] = {"slug": SHARED_BUNDLE, "bundle": None, "error": None, "drift": ()}
    report |= {"removed": [], "not_counted": [], "not_ours": []}
    try:
        bundle = back_up_shared(source, SHARED_POLICY, options)
    except BackupError as error:
        return report | {"error": str(error)}
    manifest = bundle.manifest
    report |= {"bundle": bundle.folder, "bytes": manifest.bytes, "rows": manifest.rows}
    try:
        if keep:
            found = keep_newest_shared(bundle, keep, source.keys)
            report |= {"removed": found.outdated, "not_counted": found.uncounted}
    except (OSError, TenancyError) as error:
        report["error"] = f"The backup is complete, but older bundles could not be deleted: {error}"
    return report


def outdated_shared_report(source: Source, folder: Path, keep: Keep) -> dict[str, Any]:
    """What --keep would delete after the next backup."""
    found = find_outdated_shared(folder, keep, source.keys)
    report = {"slug": SHARED_BUNDLE, "bundle": None, "error": None, "would_remove": found.outdated}
    return report | {"not_counted": found.uncounted, "not_ours": []}

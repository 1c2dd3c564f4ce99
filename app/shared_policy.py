"""Which rows of the schema shared belong to its bundle, and what a restored one must not do again."""

from typing import Any, Final

import psycopg

from tenant_schemas.backup.shared_policy import SharedPolicy

# The links of open invitations go on working. What waited to be sent may have been sent since the backup, and a drill
# must write to nobody.
_SEND_NOTHING: Final = "UPDATE shared.account_mails SET next_attempt_at = NULL WHERE next_attempt_at IS NOT NULL"


def after_load(connection: psycopg.Connection[Any]) -> None:
    """Send no mail that waited when the backup was taken."""
    connection.execute(_SEND_NOTHING)


SHARED_POLICY: Final = SharedPolicy(
    left_out={
        "sessions": "users log in again",
        "refresh_tokens": "they belong to sessions",
        "attempt_counts": "limits begin anew",
        "spare_schemas": "the retired schemas are not in the bundles",
        "schema_fingerprints": "they are computed again",
        "schema_stamps": "they are of the lost server's catalogue",
        "tenant_proofs": "the prover proves the restored rows",
    },
    # Other mails have tokens that are valid for an hour at most, or none.
    conditions={"account_mails": "kind = 'invitation'"},
    incidental=frozenset(
        {"migration_runs", "migration_outcomes", "secret_checks"}
        | {"schema_fingerprints", "schema_stamps", "attempt_counts"}
    ),
    after_load=after_load,
)

"""`flask wallets expire-documents`."""

from tenant_schemas.testing.plugin import Database
from tests.app.statements.conftest import Book
from tests.app.statements.documents.conftest import change, job_of
from tests.app.statements.documents.test_routes import ids


def test_it_deletes_expired_documents_of_every_tenant_and_names_the_tenant_that_fails(
    fresh_book: Book, fresh_database: Database
) -> None:
    change(fresh_database, "expires_at = now()", job_of(fresh_book)["id"])
    runner = fresh_book.app.test_cli_runner()
    said = runner.invoke(args=["wallets", "expire-documents"])
    assert (said.exit_code, said.output.splitlines()) == (
        0,
        ["eur: 1 documents were deleted", "km: 0 documents were deleted"],
    )
    assert ids(fresh_database) == []
    fresh_database.as_superuser().execute(b"DROP FUNCTION km_schema.documents_expire_v1")
    failed = runner.invoke(args=["wallets", "expire-documents"])
    assert failed.exit_code == 1
    assert "eur: 0 documents were deleted" in failed.output
    assert "km: failed" in failed.output

"""The results of the prover. Only the tenants' function proof_step_v1 writes a proof, so that none can be forged."""

from datetime import datetime
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from app.db import SharedModel, TenantModel
from tenant_schemas.tenant import SHARED_SCHEMA

_MOMENT = sa.DateTime(timezone=True)
_NONE_YET = sa.text("0")


class TenantProof(SharedModel):
    """The result of the latest pass over a tenant. All that was committed before `proven_at` is proven; `failure` tells
    why a later pass could not go on, and `heads_finding` what the signed heads say against the tenant's chains.
    """

    __tablename__ = "tenant_proofs"
    __table_args__ = ({"schema": SHARED_SCHEMA},)

    tenant_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("shared.tenants.id", name="tenant_proofs_tenant_id_fkey", ondelete="CASCADE"), primary_key=True
    )
    proven_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    full_proven_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    wallets: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    movements: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    findings: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    first_finding: Mapped[str | None] = mapped_column(sa.Text)
    failed_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    failure: Mapped[str | None] = mapped_column(sa.Text)
    heads_checked_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    heads_finding: Mapped[str | None] = mapped_column(sa.Text)


class WalletProof(TenantModel):
    """How far a wallet's chain is proven, and the hash there."""

    __tablename__ = "wallet_proofs"

    wallet_id: Mapped[UUID] = mapped_column(primary_key=True)
    seq: Mapped[int] = mapped_column(sa.BigInteger)
    hash: Mapped[bytes] = mapped_column(sa.LargeBinary)
    proven_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=sa.func.clock_timestamp())


class ProofFinding(TenantModel):
    """What the latest proof of a row found wrong."""

    __tablename__ = "proof_findings"

    kind: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    subject: Mapped[str] = mapped_column(sa.Text, primary_key=True)
    wallet_id: Mapped[UUID | None]
    seq: Mapped[int | None] = mapped_column(sa.BigInteger)
    finding: Mapped[str] = mapped_column(sa.Text)
    found_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=sa.func.clock_timestamp())
    seen_at: Mapped[datetime] = mapped_column(_MOMENT, server_default=sa.func.clock_timestamp())


class ProofProgress(TenantModel):
    """How far the current pass has come: one row."""

    __tablename__ = "proof_progress"

    one: Mapped[bool] = mapped_column(primary_key=True, server_default=sa.true())
    phase: Mapped[str | None] = mapped_column(sa.Text)
    is_full: Mapped[bool] = mapped_column(server_default=sa.true())
    started_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    place: Mapped[str | None] = mapped_column(sa.Text)
    partial_id: Mapped[UUID | None]
    partial_seq: Mapped[int | None] = mapped_column(sa.BigInteger)
    wallets: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    movements: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    audit_seq: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    audit_hash: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    feed_id: Mapped[UUID | None]
    feed_position: Mapped[int] = mapped_column(sa.BigInteger, server_default=_NONE_YET)
    proven_at: Mapped[datetime | None] = mapped_column(_MOMENT)
    full_proven_at: Mapped[datetime | None] = mapped_column(_MOMENT)

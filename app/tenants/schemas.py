"""Tenants on the wire. `app/tenant_settings.py` checks the values of settings; this file has their public names."""

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from app.api.fields import REQUIRED, Answer, Choice, Moment, Schema, Text, Word, Words, coded
from app.api.money_fields import CurrencyField, MoneyField
from app.api.pagination import page_schema
from app.api.spelling import camel_case
from app.api.text_fields import Name
from app.tenant_settings import LocaleField, TenantSettingsSchema
from app.users.schemas import CurrencySchema
from tenant_schemas.names import is_printable
from tenant_schemas.tenant import DISPLAY_NAME_MAX_LENGTH, SLUG_MAX_LENGTH, TenantStatus

STATUSES = Words("TenantStatus", *TenantStatus)
NOT_A_LIST: Any = dict.fromkeys(("invalid", "null"), coded("not_a_list", "A list is needed."))


class DisplayName(Name):
    """A tenant's display name, by the rule of `check_display_name`: operators see it in terminals."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        name = super()._deserialize(value, attr, data, **kwargs)
        if not is_printable(name):
            raise self.make_error("control")
        return name


class LimitsSchema(TenantSettingsSchema):
    """The limits of a tenant. A missing one has the service's default."""

    class Meta:
        exclude = ("currency", "currencies", "locale")

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        field_obj.data_key = camel_case(field_name)


class LimitChangesSchema(LimitsSchema):
    """Limits to change. null removes a limit, so that the service's default applies."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        super().on_bind_field(field_name, field_obj)
        field_obj.allow_none = True


class MainCurrencyField(CurrencyField):
    def __init__(self) -> None:
        super().__init__(required=True, error_messages=REQUIRED)
        self.metadata = {**self.metadata, "description": "ISO 4217; it never changes"}


class TotalsSchema(Answer):
    currency = fields.String(metadata={"description": "ISO 4217"})
    wallets = fields.Integer()
    deposit_balance = MoneyField(attribute="deposit_balance_minor", data_key="depositBalance")
    credit_used = MoneyField(attribute="credit_used_minor", data_key="creditUsed")
    held = MoneyField(attribute="held_minor")


class TenantSchema(Answer):
    may_lack = ("currency", "locale")

    id = fields.String(attribute="tenant.slug", metadata={"description": "the slug"})
    name = fields.String(attribute="tenant.name")
    status = Word(STATUSES, attribute="tenant.status")
    currency = fields.String(attribute="settings.currency", metadata={"description": "the main one, ISO 4217"})
    currencies = fields.List(fields.String(), metadata={"description": "all currencies of wallets"})
    locale = fields.String(attribute="settings.locale")
    settings = fields.Nested(
        LimitsSchema, allow_none=True, metadata={"description": "its limits; null if the stored settings are invalid"}
    )
    revision = fields.String(attribute="tenant.revision", metadata={"description": "where its schema is"})
    created_at = Moment(data_key="createdAt")
    version = fields.Integer(metadata={"description": "for If-Match; a migration of the tenant changes it too"})
    totals = fields.List(
        fields.Nested(TotalsSchema),
        allow_none=True,
        metadata={
            "description": "by currency; null if the tenant can't be read now, or demands a second factor that this "
            "session lacks"
        },
    )


class OwnLimitsSchema(Answer):
    rate_limit = fields.String(data_key="rateLimit", metadata={"description": "of all callers together: 6000/minute"})
    caller_rate_limit = fields.String(data_key="callerRateLimit", metadata={"description": "of each caller"})
    max_concurrent_requests = fields.Integer(data_key="maxConcurrentRequests")
    max_body_bytes = fields.Integer(data_key="maxBodyBytes")


class OwnSettingsSchema(Answer):
    """What holds in the tenant now, for its staff. Operators change it."""

    id = fields.String(attribute="tenant.slug", metadata={"description": "the tenant's slug"})
    name = fields.String(attribute="tenant.name")
    status = Word(STATUSES, attribute="tenant.status")
    currencies = fields.List(fields.Nested(CurrencySchema), metadata={"description": "the main one first"})
    locale = fields.String()
    limits = fields.Nested(OwnLimitsSchema)
    defaults = fields.List(
        fields.String(), metadata={"description": "names of the settings that are the service's default here"}
    )


TenantPageSchema = page_schema(TenantSchema)


class ProvisionTenantSchema(Schema):
    slug = Text(
        required=True,
        data_key="id",
        max_length=SLUG_MAX_LENGTH,
        description="the slug: a lower-case letter, then lower-case letters, digits or _",
    )
    name = DisplayName(max_length=DISPLAY_NAME_MAX_LENGTH, description="the display name; default: the slug")
    currency = MainCurrencyField()
    currencies = fields.List(CurrencyField(), error_messages=NOT_A_LIST)
    locale = LocaleField(metadata={"description": "the locale of PDF statements, for instance bs_BA"})
    settings = fields.Nested(LimitsSchema)


class ConfigureTenantSchema(Schema):
    name = DisplayName(max_length=DISPLAY_NAME_MAX_LENGTH)
    status = Choice(STATUSES)
    currencies = fields.List(
        CurrencyField(), error_messages=NOT_A_LIST, metadata={"description": "all of them; none can be removed"}
    )
    locale = LocaleField(allow_none=True)
    settings = fields.Nested(LimitChangesSchema)

    @validates_schema
    def needs_something(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            raise ValidationError([coded("nothing_to_change", "Send something to change.")])


class ProvisioningSchema(Answer):
    id = fields.UUID()
    tenant_id = fields.String(attribute="slug", data_key="tenantId", metadata={"description": "the slug"})
    name = fields.String()
    status = Word(Words("ProvisioningStatus", "pending", "done", "failed"))
    error = fields.String(allow_none=True, metadata={"description": "why it failed"})
    requester_id = fields.UUID(attribute="requested_by", data_key="requesterId")
    requested_at = Moment(data_key="requestedAt")
    finished_at = Moment(data_key="finishedAt", allow_none=True)

-- Mails about webhooks that were disabled. Frozen once merged.
--
-- The list of kinds has a new name, so that the new one stands before the old one goes.
ALTER TABLE shared.account_mails ADD CONSTRAINT account_mails_kind_known_v2 CHECK (kind IN ('invitation',
    'password_reset', 'email_change', 'no_password', 'password_changed', 'email_changed', 'second_factor_on',
    'second_factor_off', 'webhook_disabled')) NOT VALID;
ALTER TABLE shared.account_mails VALIDATE CONSTRAINT account_mails_kind_known_v2;
ALTER TABLE shared.account_mails DROP CONSTRAINT account_mails_kind_known;

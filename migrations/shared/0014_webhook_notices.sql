-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid
-- Mails about webhooks that were disabled. Frozen once merged.
--
-- A process of the last release does not know the kind, and gives such a mail up. The table is small: mails are pruned.

ALTER TABLE shared.account_mails DROP CONSTRAINT account_mails_kind_known;
ALTER TABLE shared.account_mails ADD CONSTRAINT account_mails_kind_known CHECK (kind IN ('invitation',
    'password_reset', 'email_change', 'no_password', 'password_changed', 'email_change_asked', 'email_changed',
    'second_factor_on', 'second_factor_off', 'webhook_disabled')) NOT VALID;
ALTER TABLE shared.account_mails VALIDATE CONSTRAINT account_mails_kind_known;

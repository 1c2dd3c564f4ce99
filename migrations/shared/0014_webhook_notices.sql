-- Mails about webhooks that were disabled. Frozen once merged.
--
-- The list of kinds gets a new name, so that the new one stands before the old one goes.
-- squawk-ignore constraint-missing-not-valid -- The table is small: `flask auth prune` deletes old mails.
ALTER TABLE shared.account_mails ADD CONSTRAINT account_mails_kind_known_v2 CHECK (kind IN ('invitation',
    'password_reset', 'email_change', 'no_password', 'password_changed', 'email_change_asked', 'email_changed',
    'second_factor_on', 'second_factor_off', 'webhook_disabled'));
-- squawk-ignore ban-drop-constraint
ALTER TABLE shared.account_mails DROP CONSTRAINT account_mails_kind_known;

-- squawk-ignore-file ban-drop-constraint, constraint-missing-not-valid
-- Another kind of mail, of an address that was asked for; the age of ended invitations. Frozen once merged.
--
-- A process of the last release does not know the kind, and gives such a mail up. The table is small: mails are pruned.

ALTER TABLE shared.account_mails DROP CONSTRAINT account_mails_kind_known;
ALTER TABLE shared.account_mails ADD CONSTRAINT account_mails_kind_known CHECK (kind IN ('invitation',
    'password_reset', 'email_change', 'no_password', 'password_changed', 'email_change_asked', 'email_changed',
    'second_factor_on', 'second_factor_off')) NOT VALID;
ALTER TABLE shared.account_mails VALIDATE CONSTRAINT account_mails_kind_known;

-- When the token was made, if its mail was asked for again since: created_at is of the last mail.
ALTER TABLE shared.account_mails ADD COLUMN token_made_at timestamptz;

-- For the pruning of invitations.
CREATE INDEX invitations_over_at_idx ON shared.invitations ((coalesce(accepted_at, revoked_at, expires_at)));

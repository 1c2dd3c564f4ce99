-- A refresh token's successor can be derived again for a moment after the token's first use. Frozen once merged.
--
-- The successor is an HMAC of the used token, this salt and a key of the service, so that no row tells it.
ALTER TABLE shared.refresh_tokens ADD COLUMN successor_salt bytea
    CONSTRAINT refresh_tokens_salt_length CHECK (length(successor_salt) = 16);

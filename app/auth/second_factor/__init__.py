"""The second factor of a log-in: TOTP (RFC 6238) and recovery codes (shared schema)."""

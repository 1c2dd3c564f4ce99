"""Authentication and authorisation: log-in, sessions, tokens, credentials, and the gate in front of every route."""

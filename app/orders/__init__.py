"""Orders paid from a wallet: placed and paid in one db transaction, cancelled with a refund."""

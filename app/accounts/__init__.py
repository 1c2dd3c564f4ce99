"""What a user does with the own account: profile, address, forgotten password, sessions."""

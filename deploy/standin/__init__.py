"""A stand-in for your main application, to copy from: its own users, and the wallet as a service behind the same
gateway. It shares no code and no database with the wallet.
"""

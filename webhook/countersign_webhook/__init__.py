"""The front door: admission for the API server, decisions and call tokens for signers, JWKS for everyone.

Nothing imports this package; it may import everything below it.
"""

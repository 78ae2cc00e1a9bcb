"""What signers ask: may this call happen (``/token``), nonces, and which servers there are (leg T of wire.md).

Callers: signers and verifiers, on the calls port. A handler here never sees a rule and policy never sees HTTP: ``form``
reads the words, ``facts`` looks the caller up, ``judge`` asks policy, ``recorder`` writes it down, ``token`` answers.
It never answers from caches that are stale, and makes a token in one function, after a recorded yes.
"""

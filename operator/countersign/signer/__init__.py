"""The signer: the sidecar that holds the TPM's handle and countersigns each tool call of the agent beside it.

It enrols (``enrol``), keeps the identity in memory and renews it (``keyring``), and is a proxy on loopback (``proxy``):
the agent's MCP client speaks to ``http://127.0.0.1:<port>/<tool server>`` with no credential at all. For each call the
signer asks the front door for a token that names that one call (``front`` through ``door``), and forwards the bytes it
parsed with the token and a fresh signature by the key in the TPM (``forward``). ``exchange`` is one request's two ends,
``replies`` and ``answers`` are what goes back.

Called by: the injected container, and whoever runs ``countersign signer``. It never hands the agent a token, never signs
a digest or bytes that a caller supplies, never follows a redirect, and names nothing itself: agent, SPIFFE ID and issuer
come back from the authority.
"""

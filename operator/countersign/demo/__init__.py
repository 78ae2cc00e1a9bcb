"""The story that ``countersign demo`` tells: a tool call that is countersigned, and every attack on it that must fail.

Callers: ``countersign demo``, ``make demo`` and the tests of :mod:`tests/demo`, which assert each scene. Everything runs as in
production: separate processes started by the console's own commands, TLS between them, a real API server, the chart's
RBAC and admission. What the machine lacks is played in the open: the kubelet (with the nodes' own client certificates)
and the mounting of Secrets as files.

This room contains nothing that another process needs, knows no shortcut into one, and leaves nothing running.
"""

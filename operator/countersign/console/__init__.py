"""What people ask a live cluster: ``kubectl countersign status | why | device | revoke | audit``.

Every command works with the person's own kubeconfig and rights, and says what it was not allowed to see. What is found is
judged by pure functions (``health``, ``diagnosis``), so that they are tested without a cluster; ``output`` prints tables as
kubectl does, and lets no object's text act on a terminal.

This room never decides about calls and never writes but where the command's name says so (``device approve|deny``,
``revoke``); nothing imports it but the console. Exit statuses: 0 all is well or done, 1 it is not, 2 wrong use, 3 the cluster
does not answer or does not let this person look.
"""

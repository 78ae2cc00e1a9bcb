"""What people ask about policy, before it bites and after: ``countersign policy test | eval | explain | lint``.

A person who writes policies runs them against cases, asks what a described call would get, reads why a decision was made, and
lets what looks wrong be pointed out. Files and a live cluster are read alike; the decision itself is ``policy.decide``, the
same function that the webhook asks.

This room never decides, never writes to a cluster, and nothing imports it but the console.
"""

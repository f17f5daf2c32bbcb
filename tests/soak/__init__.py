"""The soak: hours of random load and random faults, and a ledger that must add up in the end.

`python -m tests.soak --minutes 60`. Three processes enqueue all kinds of tasks; a supervisor keeps one real
`runsnappea` alive; faults are chosen by the seed. Everybody notes what he did in the ledger of the site, and
`reconciliation.py` holds it against the table and against what the README guarantees.
"""

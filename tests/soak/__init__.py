"""The soak: hours of random load and random faults, and a ledger that must add up at the end.

`python -m tests.soak --minutes 60`. Three processes enqueue all kinds of tasks; a supervisor keeps one real
`runsnappea` alive; faults are chosen by the seed. Each process notes what it did in the ledger of the site,
and `reconciliation.py` compares it with the table and with the guarantees of the manual.
"""

"""How fast Snappea is, beside its peers, in one run.

    pip install -e '.[bench]'
    python -m tests.benchmarks > figures.md     # from the root of the repository; about 20 minutes
    python -m tests.benchmarks --postgres       # the queues on PostgreSQL; about 10 minutes
    python -m tests.benchmarks --limits         # how far the SQLite queue goes; about 12 minutes
    python -m tests.benchmarks --limits --postgres  # the same on PostgreSQL; about 12 minutes
    python -m tests.benchmarks --quick          # only to see that everything still runs

Every measurement is made of real processes in a directory of its own, with all systems one after
the other in each round, so that a noisy neighbour strikes them all. `TMPDIR` chooses the file system.

`systems/` has one short file per system, `measurements.py` one function per measurement,
`targets.py` what Snappea has to reach.
"""

"""How fast Snappea is, beside its peers and beside SQLite itself, by one command.

    pip install -e '.[test]'                    # and redis-server and postgresql of the system
    python -m tests.benchmarks > figures.md     # from the root of the repository; about 45 minutes
    python -m tests.benchmarks --readme         # the same, and puts the figures and charts into the manual
    python -m tests.benchmarks --quick          # only to see that everything still runs: 8 minutes
    python -m tests.benchmarks --limits         # instead: how far one can go with Snappea; about 20 minutes
    python -m tests.benchmarks --out charts --load snappea/docs/pages/images/figures.json   # draws again

Each system has an environment of its own, with the versions that its file in `systems/` names, made once
and kept in `--environments`. Redis and PostgreSQL are started for it. Every measurement is made of real
processes in a directory of its own, with all systems one after the other in each round, so that a noisy
neighbour strikes them all. `TMPDIR` chooses the file system.

`systems/` has one short file per system, `measurements.py` one function per measurement,
`figures.py` what comes out and `targets.py` what Snappea has to reach.
"""

"""Benchmarks of Snappea, its peers and SQLite itself, by one command.

    pip install -e '.[test]'                    # and redis-server and postgresql of the system
    python -m tests.benchmarks > figures.md     # from the root of the repository; about an hour
    python -m tests.benchmarks --readme         # the same, and writes figures and charts into the manual
    python -m tests.benchmarks --quick          # only checks that everything still runs: 15 minutes
    python -m tests.benchmarks --limits         # instead: how far one queue can go; about 20 minutes
    python -m tests.benchmarks --compare main   # instead: this checkout beside a commit; 5 minutes
    python -m tests.benchmarks --floors         # instead: whether Snappea is far too slow; 20 seconds
    python -m tests.benchmarks --out charts --load snappea/docs/pages/images/figures.json   # redraws

Each system has an environment of its own, with the versions that its file in `systems/` names. It is created
once and kept in `--environments`. Redis and PostgreSQL are started when needed. Each measurement uses real
processes in a directory of its own. Each round measures all systems one after the other, so that a noisy
neighbor affects all of them. `TMPDIR` chooses the file system.

`systems/` has one short file per system, `measurements.py` one function per measurement,
`figures.py` the results, and `targets.py` what Snappea must reach.
"""

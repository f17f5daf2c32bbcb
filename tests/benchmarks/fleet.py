"""Several Foremen on PostgreSQL: `python -m tests.benchmarks.fleet`.

With `--compare REV`, this checkout and the revision take turns. Each figure is the median of the rounds.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from tests.servers import Postgres
from tests.site import ROOT, PostgresSite, Process, Site, wait_until

from .compare import extract, revision

#: Rows to drain, Foremen that idle, connections that listen, and tasks for the idle ones.
ROWS, FOREMEN, LISTENERS, TASKS = 24_000, 20, 100, 100
#: For how long to enqueue, and how long a backend may keep its statistics to itself, in seconds.
SECONDS, UNTIL_COUNTED = 4.0, 11.0
FILL = """
    INSERT INTO snappea_task (task_name, queue, enqueued_at)
    SELECT 'tests.playground.tasks.nothing', 'queue-' || mod(n, 3), clock_timestamp()
    FROM generate_series(1, ?) AS n"""
TRANSACTIONS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
LISTEN = """
import json, os, select, psycopg
queue = json.loads(os.environ["SNAPPEA_TEST_QUEUE"])
where = dict(host=queue["HOST"], port=queue["PORT"], user=queue["USER"], dbname=queue["NAME"])
opened = [psycopg.connect(**where, autocommit=True) for _ in range(int(sys.argv[1]))]
poll = select.poll()
for connection in opened:
    connection.execute("LISTEN snappea")
    poll.register(connection.fileno(), select.POLLIN)
found = {connection.fileno(): connection.pgconn for connection in opened}
print("ready", flush=True)
while True:
    for descriptor, _event in poll.poll():
        found[descriptor].consume_input()
        while found[descriptor].notifies():
            pass
"""
ENQUEUE = """
import time
from contextlib import nullcontext
from django.db import transaction
for _ in range(50):
    nothing.delay()
print("ready", flush=True)
began, count = time.monotonic(), 0
while time.monotonic() < began + float(sys.argv[2]):
    with transaction.atomic("snappea") if sys.argv[1] == "commits" else nullcontext():
        nothing.delay()
    count += 1
print("a second:", count / (time.monotonic() - began), flush=True)
"""
ASK = """
import time
for number in range(int(sys.argv[1])):
    time.sleep(0.1)
    print("asked", time.monotonic(), flush=True)
    record.delay(number)
"""


def drain(site: PostgresSite, foremen: int) -> Iterator[tuple[str, float]]:
    """Measure how many no-op tasks a second Foremen run from three queues."""
    for _ in range(foremen):
        site.foreman()
    site.sql(FILL, ROWS)
    began = time.monotonic()
    site.sql("NOTIFY snappea")
    while site.sql("SELECT 1 FROM snappea_task LIMIT 1"):
        time.sleep(0.1)  # the server has other work
    yield f"drain, tasks/s, Foremen: {foremen}", ROWS / (time.monotonic() - began)


def enqueue(site: PostgresSite, what: str, listeners: int, processes: int = 2) -> Iterator[tuple[str, float]]:
    """Measure how many calls, or transactions with one call each, processes make."""
    site.program(LISTEN, str(listeners)).wait_for_output("ready")
    started = [site.program(ENQUEUE, what, str(SECONDS)) for _ in range(processes)]
    rates = [float(each.wait_for_output(r"a second: ([\d.]+)\n")[1]) for each in started]
    yield f"{what}/s, processes: {processes}, listeners: {listeners}", sum(rates)


def idle(site: PostgresSite, foremen: int) -> Iterator[tuple[str, float]]:
    """Measure what a task costs an idle fleet, apart from what the fleet costs without tasks."""
    started = [site.manage("runsnappea") for _ in range(foremen)]
    for foreman in started:
        foreman.wait_for_output("tasks ready")
    ask(site, 20)
    moments, counts = [], []
    for tasks in (0, 0, TASKS):
        if tasks:
            asked = ask(site, tasks)
        time.sleep(UNTIL_COUNTED)
        moments.append(time.monotonic())
        counts.append(site.sql(TRANSACTIONS)[0][0])
    without = (counts[1] - counts[0]) / (moments[1] - moments[0])
    per_task = (counts[2] - counts[1] - without * (moments[2] - moments[1])) / TASKS
    found = [site.ledger.moments("start", number)[-1] - moment for number, moment in enumerate(asked)]
    yield f"transactions/s without tasks, Foremen: {foremen}", without
    yield f"transactions a task, Foremen: {foremen}", per_task
    yield f"pick-up p50, ms, Foremen: {foremen}", 1000 * median(found)


def ask(site: Site, tasks: int) -> list[float]:
    """Enqueue tasks, one after the other; return when."""
    process: Process = site.program(ASK, str(tasks))
    assert process.wait() == 0, process.output()
    wait_until(lambda: len(site.ledger.keys("end")) >= tasks and not site.counts())
    return [float(line.split()[1]) for line in process.output().splitlines() if line.startswith("asked")]


MEASUREMENTS: dict[str, list[Callable[[PostgresSite], Iterator[tuple[str, float]]]]] = {
    "drain": [lambda site: drain(site, 1), lambda site: drain(site, 3)],
    "enqueue": [lambda site: enqueue(site, "calls", 1), lambda site: enqueue(site, "calls", LISTENERS)],
    "site": [lambda site: enqueue(site, "commits", 1, 4)],
    "idle": [lambda site: idle(site, FOREMEN)],
}


@contextmanager
def site_in(server: Postgres, directory: Path, name: str, home: Path) -> Iterator[PostgresSite]:
    """Create a site that runs the package of a directory."""
    directory.mkdir()
    site = PostgresSite(directory, server, name)
    site.variables |= {"PYTHONPATH": f"{home}:{ROOT}", "PYTHONSAFEPATH": "1"}
    try:
        yield site
    finally:
        site.end()
        server.drop(name)


def main() -> None:
    """Measure, and print a line for each figure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument("--compare", type=revision, metavar="REV", help="an earlier commit")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as text, closing(Postgres(is_durable=True)) as server:
        directory = Path(text)
        homes = {"here": ROOT}
        if options.compare:
            homes = {options.compare: extract(options.compare, directory), **homes}
        server.create("migrated")
        database = {"SNAPPEA_TEST_QUEUE": json.dumps(server.settings("migrated"))}
        maker = Site(directory)
        maker.variables |= database
        assert maker.manage("migrate", "--using=snappea").wait() == 0
        cases = [measure for name in options.only for measure in MEASUREMENTS[name]]
        for number, (measure, home) in enumerate((m, h) for m in cases * options.rounds for h in homes):
            with site_in(server, directory / str(number), f"site_{number}", homes[home]) as site:
                for title, figure in measure(site):
                    found.setdefault(title, {}).setdefault(home, []).append(figure)
                    print(f"{home:10} {title:50} {figure:10,.1f}", flush=True)
    print(json.dumps(found))
    for title, by_home in found.items():
        print(f"{title:50}", *(f"{home}: {median(figures):,.1f}" for home, figures in by_home.items()))


if __name__ == "__main__":
    main()

"""How long `snappea preflight` takes: `python -m tests.benchmarks.preflight [ROWS]`, 1,000,000 by default.

Prints seconds of CPU time and megabytes of memory, once where all calls fit, and once where none does.
"""

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator

#: The arguments of a row, by its number modulo 4.
ARGUMENTS = (
    ('[{},"Main Street {}"]', "{{}}"),
    ('[{}]', '{{"address":"Main Street {}","express":true}}'),
    ('["{}",[1,2,3],null]', "{{}}"),
    ("[]", "{{}}"),
)  # fmt: skip
NAMES = ("bench.ship", "bench.ship", "bench.mail", "bench.tidy")
STATES = ("ready", "scheduled", "failed")
INSERT = "INSERT INTO snappea_task (task_name, args, kwargs, status, enqueued_at) VALUES (?, ?, ?, ?, ?)"


def main() -> None:
    """Fill a database, and check it twice."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "SNAPPEA_TEST_DIR": directory}
        import django

        django.setup()
        from django.core.management import call_command

        from snappea import task
        from snappea.queue.database import connect, transact
        from snappea.tasks.function import registry

        call_command("migrate", using="snappea", verbosity=0)
        with transact(connect()) as db:
            db.executemany(INSERT, _rows(count))

        def ship(order: int, address: str, express: bool = False) -> None: ...
        def mail(user: str, items: list[int], body: str | None) -> None: ...
        def tidy() -> None: ...

        for function in (ship, mail, tidy):
            task(name=f"bench.{function.__name__}")(function)
        _measure("all calls fit")
        for name in {*NAMES}:
            del registry[name]

        def other(one: dict[str, int], two: dict[str, int]) -> None: ...

        task(name=NAMES[0], aliases=[*{*NAMES[1:]} - {NAMES[0]}])(other)
        _measure("no call fits")


def _rows(count: int) -> Iterator[tuple[str, ...]]:
    for number in range(count):
        args, kwargs = ARGUMENTS[number % 4]
        row = NAMES[number % 4], args.format(number, number), kwargs.format(number), STATES[number % 3]
        yield *row, "2026-01-01 12:00:00.000000"


def _measure(what: str) -> None:
    from snappea.monitoring.preflight import examine

    began = time.process_time()
    report = examine()
    seconds = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = f"{len(report.problems)} problems, {report.checked.total():,} calls"
    print(f"{what}: {seconds:.1f} s of CPU time, {memory} MB at most, {found}")


if __name__ == "__main__":
    main()

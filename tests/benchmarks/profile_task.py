"""The function calls of one no-op task, from delay() to settled: `python -m tests.benchmarks.profile_task`.

A real Foreman on a real SQLite file, in this process, after it has warmed up. Only Snappea's own functions
count. A crossing is a call from one of its files into another one.
"""

import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median_low
from types import FrameType
from typing import Any, NamedTuple

WARM_UP = 20
SAMPLES = 25
#: After how long a step counts as hung, in seconds.
PATIENCE = 30.0


class Cost(NamedTuple):
    """The cost of one part of the work."""

    files: int
    functions: int
    calls: int
    crossings: int


class Profile:
    """The calls of a thread, or of several, between two moments."""

    def __init__(self, home: str) -> None:
        self._home = home
        self.calls: Counter[tuple[str, str, int]] = Counter()
        self.crossings = 0
        self.is_on = False

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Count a call; for sys.setprofile()."""
        if event != "call" or not self.is_on:
            return
        code = frame.f_code
        if not code.co_filename.startswith(self._home):
            return
        self.calls[code.co_filename, code.co_qualname, code.co_firstlineno] += 1
        above = frame.f_back
        while above and not above.f_code.co_filename.startswith(self._home):
            above = above.f_back
        self.crossings += bool(above and above.f_code.co_filename != code.co_filename)

    def clear(self) -> None:
        """Reset the counts."""
        self.calls.clear()
        self.crossings = 0

    def cost(self) -> Cost:
        """Return the counts."""
        files = {file for file, *_ in self.calls}
        return Cost(len(files), len(self.calls), self.calls.total(), self.crossings)


def main() -> None:
    """Print the table; with `-v` every function as well."""
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {"DJANGO_SETTINGS_MODULE": "tests.settings", "SNAPPEA_TEST_DIR": directory}
        os.environ["SNAPPEA_TEST_SETTINGS"] = '{"SYNCHRONOUS": "NORMAL"}'
        import django

        django.setup()
        costs, functions = _measure()
    print(f"{'':10}{'files':>8}{'functions':>11}{'calls':>8}{'crossings':>11}")
    for name, cost in costs.items():
        print(f"{name:10}{cost.files:8}{cost.functions:11}{cost.calls:8}{cost.crossings:11}")
    if "-v" in sys.argv:
        for part, counted in functions.items():
            print(f"\n{part}")
            for (file, name, _line), calls in sorted(counted.items()):
                print(f"{calls:6}  {Path(file).stem:12}  {name}")


def _measure() -> tuple[dict[str, Cost], dict[str, Counter[tuple[str, str, int]]]]:
    """Return the usual cost of each part, and the functions of the last task."""
    from django.core.management import call_command

    import snappea
    from snappea.foreman.loop import Foreman

    call_command("migrate", using="snappea", verbosity=0)
    home = str(Path(snappea.__file__).parent) + os.sep
    parts = {name: Profile(home) for name in ("enqueue", "Foreman", "worker")}

    @snappea.task(name="tests.profiled")
    def nothing() -> None:
        pass

    foreman = Foreman(NUM_WORKERS=4)
    samples: list[dict[str, Cost]] = []

    def enqueue() -> None:
        try:
            wait_for(lambda: hasattr(foreman, "pool"))
            for _ in range(WARM_UP + SAMPLES):
                samples.append(_sample(parts, foreman, nothing.delay))
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.setprofile(parts["worker"])
    sampler = threading.Thread(target=enqueue)
    sampler.start()
    sys.setprofile(parts["Foreman"])
    foreman.run()
    sys.setprofile(None)
    sampler.join()
    del samples[:WARM_UP]
    usual = {
        name: Cost(*map(median_low, zip(*(sample[name] for sample in samples), strict=True)))
        for name in samples[0]
    }
    return usual, {name: part.calls for name, part in parts.items()}


def _sample(parts: dict[str, Profile], foreman: Any, delay: Callable[[], object]) -> dict[str, Cost]:
    """Enqueue, run and settle one task, and return the cost of each part."""
    sys.setprofile(None)
    wait_for(lambda: is_at_rest(foreman))
    for part in parts.values():
        part.clear()
    parts["Foreman"].is_on = parts["worker"].is_on = True
    started_before = foreman.in_flight.started
    parts["enqueue"].is_on = True
    sys.setprofile(parts["enqueue"])
    delay()
    sys.setprofile(None)
    wait_for(lambda: foreman.in_flight.started > started_before and is_at_rest(foreman))
    for part in parts.values():
        part.is_on = False
    costs = {name: part.cost() for name, part in parts.items()}
    whole = Profile("")
    for part in parts.values():
        whole.calls += part.calls
        whole.crossings += part.crossings
    return {**costs, "all": whole.cost()}


def is_at_rest(foreman: Any) -> bool:
    """Tell whether the Foreman sleeps with nothing in flight."""
    return foreman.pool.foreman_sleeps and not foreman.in_flight.claims


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE:g} s in vain")
        time.sleep(0.002)


if __name__ == "__main__":
    main()

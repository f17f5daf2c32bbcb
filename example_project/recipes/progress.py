"""Show how far a task is, for example in a progress bar that the page polls.

Try it: `python -m example_project.recipes progress`
"""

import time

from snappea import current_task, task


@task(result_ttl=60)
def import_rows(count: int) -> int:
    for done in range(count):
        current_task.progress(done, count, note=f"row {done}")
        time.sleep(0.02)
    current_task.progress(count, count, note="all rows")
    return count


def show() -> None:
    result = import_rows.delay(100)
    while (row := result.refresh()) and row.status in ("ready", "running"):
        if row.progress_total:
            print(f"{row.progress_done:.0f} of {row.progress_total:.0f}: {row.progress_note}")
        time.sleep(1)
    print(f"Imported {result.get()} rows.")

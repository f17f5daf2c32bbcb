"""Enqueue a task only once while an identical call waits or runs.

Try it: `python -m example_project.recipes unique`
"""

from snappea import task


@task(unique=True)  # "running": also while an identical call runs
def update_report(report_id: int) -> None:
    """Compute a report."""


def show() -> None:
    first = update_report.apply_async((1,), countdown=60)
    second = update_report.apply_async((1,), countdown=60)
    other = update_report.apply_async((2,), countdown=60)
    print(f"The second call is the first one: {second.id == first.id}")
    print(f"Other arguments are another call: {other.id != first.id}")
    first.revoke()
    other.revoke()

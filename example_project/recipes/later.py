"""Run a task later: in an hour, or at a given time.

Try it: `python -m example_project.recipes later`
"""

from datetime import timedelta

from django.utils import timezone

from snappea import task


@task(result_ttl=60)
def send_reminder(user_id: int) -> str:
    return f"Reminded user {user_id}."


def show() -> None:
    in_an_hour = send_reminder.apply_async((42,), countdown=timedelta(hours=1))
    print(f"In an hour: {in_an_hour.status}")  # the admin shows it under Future
    in_an_hour.revoke()
    print(f"Cancelled: {in_an_hour.status}")  # None, because its row is deleted

    at_a_time = send_reminder.apply_async((43,), eta=timezone.now() + timedelta(seconds=1))
    print(f"After a second: {at_a_time.get(timeout=10)}")

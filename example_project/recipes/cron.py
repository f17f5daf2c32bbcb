"""Run a task every night, and another one every ten minutes.

`cron` needs `pip install 'django-snappea[cron]'`. Try it: `python -m example_project.recipes cron`
"""

from datetime import timedelta

from django.core.management import call_command

from snappea import schedules, task
from snappea.models import Schedule


@task(cron="0 3 * * *", timezone="Europe/Amsterdam", result_ttl=60)
def clear_sessions() -> str:
    call_command("clearsessions")
    return "Cleared the expired sessions."


@task(every=timedelta(minutes=10))
def poll() -> None:
    print("Polling ...")


def show() -> None:
    for schedule in Schedule.objects.filter(task_name__in=[clear_sessions.name, poll.name]):
        print(f"{schedule.task_name} ({schedule.expression}) runs next at {schedule.next_run}")
    now = schedules.fire(clear_sessions.name)  # run it now; its times do not change
    print(now.get(timeout=10))

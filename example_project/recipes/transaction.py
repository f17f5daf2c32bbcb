"""Enqueue a task only if the transaction commits, so that it finds the rows it needs.

Try it: `python -m example_project.recipes transaction`
"""

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.crypto import get_random_string

from snappea import task


@task
def welcome(user_id: int) -> None:
    print(f"Welcome, {User.objects.get(pk=user_id).username}!")


def sign_up(name: str, is_spam: bool = False) -> None:
    with transaction.atomic():
        user = User.objects.create(username=name)
        welcome.delay_on_commit(user.pk)
        if is_spam:
            raise ValueError("This looks like spam.")


def show() -> None:
    sign_up(f"ada-{get_random_string(8)}")  # the Foreman prints the welcome
    try:
        sign_up("spammer", is_spam=True)
    except ValueError as error:
        print(f"Rolled back, nothing enqueued: {error}")

"""Test code that enqueues, without a Foreman: look at the calls, then run them.

Try it: `python -m example_project.recipes testing`
"""

from django.core import mail
from django.core.management import call_command
from django.test import TestCase

from snappea import task
from snappea.testing import assert_enqueued, drain


@task
def send_welcome(address: str) -> None:
    mail.send_mail("Welcome", "It is good to have you.", None, [address])


def sign_up(address: str) -> None:
    send_welcome.delay_on_commit(address)


class SignUpTest(TestCase):
    def test_a_new_customer_gets_a_mail(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            sign_up("ada@example.com")
        assert_enqueued(send_welcome, "ada@example.com")
        self.assertEqual(drain(), 1)
        self.assertEqual(mail.outbox[0].to, ["ada@example.com"])


def show() -> None:
    call_command("test", __name__)

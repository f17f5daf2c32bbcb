"""The tests of projects that use Snappea: small projects with the manual's examples, in processes."""

from pathlib import Path

import pytest

from tests.docs.blocks import BY_PAGE
from tests.projects import Project

pytestmark = pytest.mark.long

SETTINGS = """
from pathlib import Path

BASE_DIR = Path(__file__).parent
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "snappea", "shop", "mail"]
SQLITE = "django.db.backends.sqlite3"
DATABASES = {
    "default": {"ENGINE": SQLITE, "NAME": BASE_DIR / "default.sqlite3"},
    "snappea": {"ENGINE": SQLITE, "NAME": BASE_DIR / "snappea.sqlite3"},
    "unused": {"ENGINE": SQLITE, "NAME": BASE_DIR / "production.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
ROOT_URLCONF = "shop.urls"
STATIC_URL, STATIC_ROOT, MEDIA_URL = "/static/", BASE_DIR / "static", "/media/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
FILES = {
    "settings.py": SETTINGS,
    "shop/__init__.py": "",
    "shop/models.py": """
from django.db import models


class Customer(models.Model):
    email = models.TextField()
    was_welcomed = models.BooleanField(default=False)
""",
    "shop/tasks.py": """
import os
from django.conf import settings
from django.core.mail import send_mail
from django.db import connections
from shop.models import Customer
from snappea import task


@task
def send_welcome(email: str) -> None:
    Customer.objects.filter(email=email).update(was_welcomed=True)
    send_mail("Welcome", "...", "shop@example.com", [email])


@task
def meddle() -> None:
    connections["unused"].cursor()


@task(result_ttl=60)
def pid() -> int:
    return os.getpid()


@task(result_ttl=60)
def told() -> list:
    knows_client = "testserver" in settings.ALLOWED_HOSTS
    return [settings.EMAIL_BACKEND, settings.MEDIA_ROOT, settings.DEBUG, knows_client]
""",
    "shop/urls.py": """
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from shop.models import Customer
from shop.tasks import send_welcome


@csrf_exempt
def sign_up(request):
    customer = Customer.objects.create(email=request.POST["email"])
    send_welcome.delay_on_commit(customer.email)
    return HttpResponse()


urlpatterns = [path("sign-up/", sign_up)]
""",
    "shop/tests/__init__.py": "",
    "mail/__init__.py": "",
    "mail/tasks.py": """
from snappea import task


@task
def send_mail(user_id: int) -> None: ...
""",
}


#: The manual's examples of how to test, by the file that they are in.
EXAMPLES = {block.title: block.text for block in BY_PAGE["how-to/test.md"] if block.title}
FIRST = EXAMPLES["mail/tests.py"]
COLLECT = EXAMPLES["shop/tests/test_collect.py"]
EAGER = EXAMPLES["shop/tests/test_eager.py"]
WITH_PYTEST = EXAMPLES["shop/tests/test_functions.py"]
FILES_AS_DATABASES = EXAMPLES["settings.py"]
LIVE = EXAMPLES["shop/tests/test_live.py"]
CRASHES = EXAMPLES["shop/tests/test_crashes.py"]
REPORT = EXAMPLES["$ pytest shop"]
CRASHES_OF_ROWS = EXAMPLES["shop/tests/test_crashes_of_rows.py"]
IN_TESTCASE = """

from django.test import TestCase


class Welcome(TestCase):
    @classmethod
    def setUpTestData(cls):
        Customer.objects.create(email="ada@example.com")

    def test_it(self):
        with self.assertRaises(AssertionError):
            crash_everywhere(send_welcome, "ada@example.com")
        crash_everywhere(send_welcome, "ada@example.com", check=Customer.objects.all)
        self.assertFalse(Customer.objects.get().was_welcomed)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, FILES)


def test_collect_and_eager_need_neither_databases_nor_a_foreman(project: Project) -> None:
    project.write("shop/tests/test_collect.py", COLLECT)
    project.write("shop/tests/test_eager.py", EAGER)
    project.write("mail/tests.py", FIRST)
    output = project.run("django", "test")
    assert "Ran 3 tests" in output and "'snappea'" not in output, "no test database was made for it"
    assert not list(project.directory.glob("*.sqlite3*"))


EACH_BEGINS_WITH_NONE = """
import unittest
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from shop.tasks import send_welcome
from snappea.testing import enqueued


class Mixin:
    def test_one(self):
        self.assertEqual(enqueued(), [])
        send_welcome.delay("one@example.com")
        self.assertEqual(len(enqueued()), 1)

    test_two = test_three = test_one


class Plain(Mixin, unittest.TestCase): ...
class Simple(Mixin, SimpleTestCase): ...
class Transaction(Mixin, TransactionTestCase): ...


class WithData(Mixin, TestCase):
    @classmethod
    def setUpTestData(cls):
        send_welcome.delay("before@example.com")
"""


def test_each_test_begins_with_none(project: Project) -> None:
    project.write("shop/tests/test_begin.py", EACH_BEGINS_WITH_NONE)
    assert "Ran 12 tests" in project.run("django", "test")
    assert "12 passed" in project.run("pytest", "-p", "no:cacheprovider", "shop")


def test_pytest(project: Project) -> None:
    for name, example in (("collect", COLLECT), ("eager", EAGER), ("functions", WITH_PYTEST)):
        project.write(f"shop/tests/test_{name}.py", example)
    isolated = "from shop.tasks import send_welcome\nfrom snappea.testing import enqueued\n" + "".join(
        f"def test_{number}():\n    assert not enqueued()\n    send_welcome.delay('x')\n" for number in (1, 2)
    )
    project.write("shop/tests/test_isolated.py", isolated)
    assert "6 passed" in project.run("pytest", "-p", "no:cacheprovider", "shop")
    fixtures = project.run("pytest", "--fixtures", "shop")
    assert "snappea_eager" in fixtures and "snappea_drain" in fixtures


def test_crashes(project: Project) -> None:
    """With databases in memory, in pytest-django's transaction and in TestCase."""
    project.write("shop/tests/test_crashes.py", CRASHES)
    exit_code, output = project.try_to_run("pytest", "-p", "no:cacheprovider", "shop")
    assert exit_code == 1 and "1 failed" in output
    for line in REPORT.splitlines()[1:]:
        assert line.strip() in output, output
    assert "testing/crashes.py" not in output, "pytest shows the test"
    project.write("shop/tests/test_crashes.py", CRASHES_OF_ROWS + IN_TESTCASE)
    assert "2 passed" in project.run("pytest", "-p", "no:cacheprovider", "shop")
    assert "Ran 1 test" in project.run("django", "test")


def test_pytest_where_there_is_no_django(project: Project) -> None:
    project.write(
        "plain/test_plain.py", "import sys\ndef test_it():\n    assert 'django' not in sys.modules\n"
    )
    output = project.run(
        "pytest", "-p", "no:django", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=plain", "plain"
    )
    assert "1 passed" in output


ROWS = """
from django.test import TestCase
from shop.tasks import send_welcome
from snappea.models import Task
from snappea.testing import assert_enqueued, drain, enqueued, override_snappea


@override_snappea(IN_TESTS="write")
class Rows(TestCase):
    databases = {"default", "snappea"}

    def test_one(self):
        self.assertEqual(Task.objects.count(), 0)
        send_welcome.delay("ada@example.com")
        send_welcome.apply_async(("bob@example.com",), countdown=60)
        self.assertEqual(assert_enqueued(send_welcome, "ada@example.com").id, Task.objects.first().pk)
        self.assertEqual(drain(), 1)
        self.assertEqual(drain(including_scheduled=True), 1)
        self.assertEqual((Task.objects.count(), enqueued()), (0, []))
        send_welcome.delay("left@example.com")

    test_two = test_one
"""


def test_rows(project: Project) -> None:
    project.write("shop/tests/test_rows.py", ROWS)
    assert "Ran 2 tests" in project.run("django", "test")
    assert "2 passed" in project.run("pytest", "-p", "no:cacheprovider", "shop")


UNDECLARED = """
from django.test import TestCase
from shop.tasks import send_welcome
from snappea.models import Task
from snappea.testing import override_snappea


@override_snappea(IN_TESTS="write")
class A(TestCase):
    databases = {"default", "snappea"}

    def test_declared(self):
        send_welcome.delay("ada@example.com")


@override_snappea(IN_TESTS="write")
class B(TestCase):
    def test_undeclared(self):
        with self.assertRaisesMessage(AssertionError, "not allowed in this test"):
            send_welcome.delay("ada@example.com")


class C(TestCase):
    databases = {"default", "snappea"}

    def test_nothing_is_left(self):
        self.assertEqual(Task.objects.count(), 0)
"""


def test_a_test_that_forgot_its_databases_writes_no_rows(project: Project) -> None:
    project.write("shop/tests/test_undeclared.py", UNDECLARED)
    assert "Ran 3 tests" in project.run("django", "test")


MORE_LIVE = """
from pathlib import Path
from django.test import TransactionTestCase, override_settings
from shop.tasks import meddle, pid, told
from snappea.models import Task
from snappea.testing import foreman


class More(TransactionTestCase):
    databases = {"default", "snappea"}

    def test_another_process(self):
        with foreman() as running:
            self.assertNotEqual(pid.delay().get(timeout=120), 0)
            self.assertEqual(pid.delay().get(timeout=120), running.pid)
            self.assertIn("Finished shop.tasks.pid", running.output())

    @override_settings(MEDIA_ROOT=Path("/tmp/of-the-test"))
    def test_settings_of_the_test(self):
        with foreman():
            backend, media, debug, knows_client = told.delay().get(timeout=30)
        self.assertIn("locmem", backend)
        self.assertEqual((media, debug, knows_client), ("/tmp/of-the-test", False, True))

    def test_only_the_databases_of_the_test(self):
        with foreman() as running:
            result = meddle.delay()
            running.wait_until_idle()
            self.assertIn("ImproperlyConfigured", result.refresh().error)

    def test_nothing_is_left(self):
        self.assertEqual(Task.objects.count(), 0)
"""


@pytest.mark.parametrize("flags", [[], ["--parallel=2"]], ids=["one process", "parallel"])
def test_a_real_foreman(project: Project, flags: list[str]) -> None:
    project.write("settings.py", SETTINGS + FILES_AS_DATABASES)
    project.write("shop/tests/test_live.py", LIVE)
    project.write("shop/tests/test_more.py", MORE_LIVE)
    project.write("shop/tests/test_collect.py", COLLECT)
    assert "Ran 6 tests" in project.run("django", "test", *flags)
    assert not list(project.directory.glob("*.sqlite3*")), "nothing stays behind"


def test_a_real_foreman_with_pytest(project: Project) -> None:
    project.write("settings.py", SETTINGS + FILES_AS_DATABASES)
    project.write("shop/tests/test_live.py", LIVE)
    assert "1 passed" in project.run("pytest", "-p", "no:cacheprovider", "shop")


CANNOT = """
from django.test import TestCase, TransactionTestCase
from snappea.testing import foreman


class Undeclared(TransactionTestCase):
    def test(self):
        with self.assertRaisesMessage(RuntimeError, 'databases = {"default", "snappea"} on the test'):
            with foreman(): ...


class InTransaction(TestCase):
    databases = {"default", "snappea"}

    def test(self):
        with self.assertRaisesMessage(RuntimeError, "is in a transaction, which a Foreman cannot see"):
            with foreman(): ...


class InMemory(TransactionTestCase):
    databases = {"default", "snappea"}

    def test(self):
        with self.assertRaisesMessage(RuntimeError, '"TEST"] = {"NAME": BASE_DIR / "test-snappea.sqlite3"}'):
            with foreman(): ...
"""


def test_where_a_foreman_cannot_work_is_said(project: Project) -> None:
    project.write("shop/tests/test_cannot.py", CANNOT)
    assert "Ran 3 tests" in project.run("django", "test")


def test_a_foreman_that_does_not_start_says_why(project: Project) -> None:
    eager = 'SNAPPEA = {"TASK_ALWAYS_EAGER": True}\n'
    project.write("settings.py", SETTINGS + FILES_AS_DATABASES + eager)
    project.write("shop/tests/test_live.py", LIVE)
    exit_code, output = project.try_to_run("django", "test")
    assert exit_code == 1 and "The Foreman did not start" in output
    assert 'SNAPPEA["TASK_ALWAYS_EAGER"] is True: tasks run immediately' in output

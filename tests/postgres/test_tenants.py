"""A schema for each tenant, as django-tenants has it: each task runs in the one of its caller."""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.docs.blocks import BY_PAGE
from tests.projects import Project
from tests.servers import Postgres
from tests.site import wait_until

pytestmark = [pytest.mark.long, pytest.mark.needs("initdb")]
SETTINGS = """
import json, os
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["snappea", "shop"]
DATABASES = {
    "default": {**json.loads(os.environ["SHOP"]), "CONN_MAX_AGE": 600},
    "snappea": {"ENGINE": "django.db.backends.sqlite3", "NAME": "snappea.sqlite3"},
}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
SNAPPEA = {
    "NUM_WORKERS": 1,
    "HOOK_ADD_TASK_KWARGS": "example_project.recipes.hooks.add_kwargs",
    "HOOK_RUN_TASK_CONTEXT": "example_project.recipes.hooks.run_context",
}
"""
TASKS = """
import os, signal
from asgiref.sync import sync_to_async
from django.db import connection
from snappea import current_task, task
from shop.hooks import InSchema

def visit(how, tenant):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO visit VALUES (%s, %s)", [how, tenant])

@task
def plain(tenant, how="plain"):
    visit(how, tenant)

@task
async def on_loop(tenant):
    await sync_to_async(visit)("on_loop", tenant)

@task(isolate=True)
def isolated(tenant):
    visit("isolated", tenant)

@task
def parent(tenant):
    plain.delay(tenant, "child")

@task
def careless(tenant):
    connection.schema_name = "globex"
    connection.cursor().execute("SET search_path = globex")
    raise ValueError(tenant)

@task(acks_late=True)
def killed_once(tenant):
    if current_task.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    visit("killed_once", tenant)

def call(*names):
    for tenant in ("acme", "globex"):
        with InSchema({"_schema": tenant}):
            for name in names:
                globals()[name].delay(tenant)
"""
HOOKS = "from example_project.recipes.tenants import InSchema\n"
CALL = "import sys, django\ndjango.setup()\nfrom shop.tasks import call\ncall(*sys.argv[1:])\n"


class Shop(Project):
    """A project with a database for its tenants, of which the queue knows nothing."""

    def __init__(self, directory: Path, server: Postgres) -> None:
        files = {"settings.py": SETTINGS, "shop/__init__.py": "", "shop/tasks.py": TASKS, "call.py": CALL}
        super().__init__(directory, files | {"shop/hooks.py": HOOKS})
        self.server = server
        server.create("shop")
        self.variables["SHOP"] = json.dumps(server.settings("shop"))
        self.prepare()
        with server.connect("shop") as connection:
            for schema in ("public", "acme", "globex"):
                connection.execute(f"CREATE TABLE {schema}.visit (how text, tenant text)")

    def prepare(self) -> None:
        """Make the schemas, and the queue's tables."""
        with self.server.connect("shop") as connection:
            connection.execute("CREATE SCHEMA acme")
            connection.execute("CREATE SCHEMA globex")
        self.run("django", "migrate", "--database=snappea", "--verbosity=0")

    def visits(self, schema: str) -> "Counter[tuple[str, str]]":
        """Count the visits in a schema, by kind of task and tenant."""
        with self.server.connect("shop") as connection:
            return Counter(connection.execute(f"SELECT how, tenant FROM {schema}.visit").fetchall())


@pytest.fixture
def shop(tmp_path: Path, postgres: Postgres) -> Iterator[Shop]:
    yield Shop(tmp_path, postgres)
    postgres.drop("shop")


FOREMAN = "python -m django runsnappea --no-reload"


def test_each_kind_of_task_runs_in_the_schema_of_its_caller(shop: Shop) -> None:
    require_separate_tenants(shop)


def require_separate_tenants(shop: Shop) -> None:
    for _ in range(2):
        shop.run("call", "plain", "on_loop", "careless", "isolated", "parent", "plain")
    with shop.running(FOREMAN, "tasks ready") as foreman:
        wait_until(
            lambda: sum((shop.visits("acme") + shop.visits("globex")).values()) == 20, foreman.output()
        )
    for tenant in ("acme", "globex"):
        found = {(how, tenant): 2 for how in ("on_loop", "isolated", "child")} | {("plain", tenant): 4}
        assert shop.visits(tenant) == found, foreman.output()
    assert not shop.visits("public")


MODELS = """
from django.db import models
from django_tenants.models import DomainMixin, TenantMixin

class Client(TenantMixin):
    auto_create_schema = True

class Domain(DomainMixin):
    pass
"""
MAKE_TENANTS = """
import django
django.setup()
from customers.models import Client
for name in ("acme", "globex"):
    Client(schema_name=name).save(verbosity=0)
"""


class TenantsShop(Shop):
    """The project of the manual's page about django-tenants."""

    def prepare(self) -> None:
        blocks = BY_PAGE["how-to/use-tenants.md"]
        page = {block.title: block.text for block in blocks if block.language == "python"}
        self.append("settings.py", page["settings.py"])
        self.append("settings.py", 'DATABASES["default"]["ENGINE"] = "django_tenants.postgresql_backend"\n')
        self.append(
            "settings.py", 'TENANT_MODEL, TENANT_DOMAIN_MODEL = "customers.Client", "customers.Domain"\n'
        )
        self.append("settings.py", 'INSTALLED_APPS += ["django.contrib.contenttypes"]\n')
        self.append("settings.py", 'SHARED_APPS += ["django.contrib.contenttypes"]\n')
        self.write("shop/hooks.py", page["shop/hooks.py"])
        self.append("shop/tasks.py", page["shop/tasks.py"])
        self.write("customers/__init__.py", "")
        self.write("customers/models.py", MODELS)
        self.write("manage.py", "from django.core.management import execute_from_command_line\n")
        self.append("manage.py", "import sys\nexecute_from_command_line(sys.argv)\n")
        self.write("make_tenants.py", MAKE_TENANTS)
        self.run("django", "makemigrations", "customers")
        self.shell(next(block.text for block in blocks if block.language == "shell"))
        self.run("make_tenants")


@pytest.mark.skipif(find_spec("django_tenants") is None, reason="django-tenants is not installed")
def test_the_page_of_the_manual_with_django_tenants(tmp_path: Path, postgres: Postgres) -> None:
    try:
        require_separate_tenants(TenantsShop(tmp_path, postgres))
    finally:
        postgres.drop("shop")


def test_a_task_that_runs_again_after_kill_9(shop: Shop) -> None:
    shop.run("call", "killed_once")
    for _ in range(2):
        with shop.running(FOREMAN, "tasks ready") as foreman:
            wait_until(lambda: foreman.popen.poll() is not None)
    with shop.running(FOREMAN, "tasks ready") as foreman:
        wait_until(lambda: shop.visits("acme") and shop.visits("globex"), foreman.output())
    assert shop.visits("acme") == {("killed_once", "acme"): 1}
    assert shop.visits("globex") == {("killed_once", "globex"): 1}

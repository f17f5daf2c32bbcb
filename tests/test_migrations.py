"""What the manual says of a deploy: the version before works on the migrated database."""

from collections.abc import Iterator

from django.core.management import call_command
from django.db.migrations import operations
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED

from snappea.models import Task

from .site import Site

#: What the code of the version before does not notice.
HARMLESS = (
    operations.CreateModel,
    operations.AddIndex,
    operations.RemoveIndex,  # replaced by one that begins with the same columns
    operations.AlterModelOptions,
    operations.RunSQL,  # of statistics: the charts of the version before are too high until it is replaced
)


def later_operations() -> Iterator[tuple[str, Operation]]:
    """Yield all operations that come after the tables were created."""
    loader = MigrationLoader(None)
    for (app, name), migration in loader.disk_migrations.items():
        if app == "snappea" and name != "0001_initial":
            for operation in migration.operations:
                yield name, operation


def test_a_migration_only_adds() -> None:
    for name, operation in later_operations():
        if isinstance(operation, operations.AddField):
            field = operation.field
            assert field.null or field.db_default is not NOT_PROVIDED, f"{name}: {operation.describe()}"
        else:
            assert isinstance(operation, HARMLESS), f"{name}: {operation.describe()}"


def test_each_migration_can_be_reversed() -> None:
    assert all(operation.reversible for _name, operation in later_operations())


def test_the_ids_of_deleted_tasks_are_not_assigned_again(site: Site) -> None:
    """SQLite forgets them if a migration copies the table."""
    call_command("migrate", "snappea", "0001", database="snappea", verbosity=0)
    site.sql("INSERT INTO snappea_task (id, task_name, enqueued_at) VALUES (41, 'x', '2026-01-01 00:00:00')")
    site.sql("DELETE FROM snappea_task")
    call_command("migrate", database="snappea", verbosity=0)
    assert Task.objects.create(task_name="x").pk == 42

"""Django's `migrate`, with --using as an alias for --database."""

import argparse
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import DEFAULT_DB_ALIAS, Error, connections

from snappea.conf import alias
from snappea.queue.availability import forget_false_migrations, trouble


class Command(MigrateCommand):
    """`manage.py migrate --database=snappea`, and the same with --using."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Add --using to Django's own options."""
        super().add_arguments(parser)
        parser.add_argument(
            "--using",
            dest="database",
            choices=tuple(connections),
            default=argparse.SUPPRESS,
            help="The same as --database.",
        )

    def get_check_kwargs(self, options: Any) -> Any:
        """Skip database checks for the queue's own database, which may not be migrated yet."""
        checked = super().get_check_kwargs(options)
        if options["database"] == alias() != DEFAULT_DB_ALIAS:
            checked["databases"] = []
        return checked

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate. If the queue's database cannot be used, explain why."""
        if options["database"] != alias():
            super().handle(*args, **options)
            return
        try:
            if _goes_forward(options) and forget_false_migrations(connections[alias()]):
                said = "The queue's tables are recorded as created, but are missing here: creating them."
                self.stdout.write(said)
            super().handle(*args, **options)
        except Error as error:
            if found := trouble(error):
                raise CommandError(str(found)) from error
            raise


def _goes_forward(options: dict[str, Any]) -> bool:
    is_ours = options["app_label"] in (None, "snappea") and options["migration_name"] != "zero"
    only_looks = options["plan"] or options["check_unapplied"] or options["prune"] or options["fake"]
    return is_ours and not only_looks

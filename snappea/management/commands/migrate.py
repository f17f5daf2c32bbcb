"""Django's `migrate`, with --using as a second name for --database."""

import argparse

from django.core.management.base import CommandParser
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connections


class Command(MigrateCommand):
    """`manage.py migrate --using=snappea`."""

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

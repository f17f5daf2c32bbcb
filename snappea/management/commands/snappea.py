"""`manage.py snappea`: show the queue and manage its tasks."""

from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations

from snappea.errors import SnappeaError
from snappea.management import beat, call, check, decide, handover, move, preflight, replay, show
from snappea.management.subcommands import Subcommands
from snappea.queue.availability import usable
from snappea.queue.quarantine import quarantined
from snappea.tasks import engine
from snappea.tasks.discovery import discover

#: The subcommands that only show rows.
_LOOKS = ("status", "list", "show", "schedules")


class Command(BaseCommand):
    """Each module of `snappea.management` adds its subcommands."""

    help = "Shows the queue and manages its tasks."

    def add_arguments(self, parser: CommandParser) -> None:
        subcommands = Subcommands(parser)
        for module in (show, call, replay, decide, handover, move, beat, preflight, check):
            module.add(subcommands)

    def get_check_kwargs(self, options: Any) -> Any:
        """Skip database checks: `handle()` reports a queue that cannot be used."""
        return {**super().get_check_kwargs(options), "databases": []}

    @no_translations
    def handle(self, *args: Any, **options: Any) -> None:
        """Run a subcommand. Exits with 1 if it fails, and with 2 if it is invalid."""
        discover()
        command, act = options["command"], partial(options["act"], self, options)
        if command == "run":
            act()  # exceptions are the task's own
            return
        runs_elsewhere = command == "enqueue" and not isinstance(engine.choose(), engine.TableEngine)
        try:
            with usable(looks_first=command not in ("check", "preflight", "move") and not runs_elsewhere):
                quarantined(act) if command in _LOOKS else act()
        except SnappeaError as error:
            raise CommandError(str(error)) from error

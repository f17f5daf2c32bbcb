"""The systems under test, in the order of the tables."""

from .base import EVERYTHING, WORKERS, System
from .django_taskq import DjangoTaskq
from .django_tasks import DjangoOx, DjangoTasksDB, HueyBackend, SnappeaBackend
from .huey import Huey
from .postgres import BeanQueue, Procrastinate, SnappeaOnPostgres
from .raw_sqlite import RawSqlite
from .snappea import READY, SCHEDULED, Snappea

DRAIN = frozenset(("drain",))
WRITES = frozenset(("enqueue", "drain", "stream"))
OF_DJANGO = frozenset(("enqueue", "drain", "stream", "latency"))

#: Measured only when they are asked for: how far one can go.
LIMITS = frozenset(("writers", "backlog"))

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Snappea("snappea", "Snappea", EVERYTHING | LIMITS),
        Snappea("snappea-ready", "Snappea, {behind:,} ready behind", DRAIN, behind=READY),
        Snappea("snappea-scheduled", "Snappea, {behind:,} scheduled", DRAIN, behind=SCHEDULED),
        Snappea("snappea-log", "Snappea, each task logged", DRAIN, verbosity=1),
        Snappea("snappea-full", "Snappea, FULL", WRITES | LIMITS, synchronous="FULL"),
        RawSqlite("sqlite", "sqlite3 alone", "NORMAL"),
        RawSqlite("sqlite-full", "sqlite3 alone, FULL", "FULL"),
        Huey("huey", "Huey"),
        Huey("huey-full", "Huey, FULL", WRITES, full=True),
        DjangoTaskq("django-taskq", "django-taskq"),
        DjangoTasksDB("django-tasks-db", "django-tasks-db"),
        SnappeaBackend("snappea-backend", "Snappea, as django.tasks' backend", OF_DJANGO),
        HueyBackend("huey-backend", "Huey, as django.tasks' backend", OF_DJANGO),
        DjangoOx("django-ox", "django-ox", OF_DJANGO),
        SnappeaOnPostgres("snappea-pg", "Snappea, 1 Foreman"),
        SnappeaOnPostgres("snappea-pg-3", "Snappea, 3 Foremen", 3),
        Procrastinate("procrastinate", "procrastinate, 1 worker"),
        Procrastinate("procrastinate-3", "procrastinate, 3 workers", 3),
        BeanQueue("beanqueue", "BeanQueue, 1 worker, one task at a time"),
        BeanQueue("beanqueue-threads", "BeanQueue, 1 worker, threads", threads=WORKERS),
        BeanQueue("beanqueue-threads-3", "BeanQueue, 3 workers, threads", 3, threads=WORKERS),
    )
}

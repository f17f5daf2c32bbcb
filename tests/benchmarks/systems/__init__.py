"""The systems under test, in the order of the tables."""

from .base import EVERYTHING, System
from .beanqueue import BeanQueue
from .celery import Celery
from .django_q2 import DjangoQ2
from .django_taskq import DjangoTaskq
from .django_tasks import DjangoOx, DjangoTasksDB, SnappeaBackend
from .dramatiq import Dramatiq
from .huey import Huey
from .pgqueuer import PgQueuer
from .postgres import SnappeaOnPostgres
from .potatoq import Potatoq
from .procrastinate import Procrastinate
from .raw_sqlite import RawSqlite
from .rq import RQ
from .snappea import Snappea
from .solid_queue import DjQueue, SteadyQueue
from .wakaq import WakaQ

#: Measured of systems that can enqueue many calls at once.
BULK = frozenset(("bulk",))
#: Measured only on request: how far one queue can go.
LIMITS = frozenset(("writers", "backlog"))
OURS = EVERYTHING | BULK | LIMITS

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        Snappea("snappea", "Snappea", OURS),
        Snappea("snappea-full", "Snappea, FULL", OURS, synchronous="FULL"),
        SnappeaBackend("snappea-backend", "Snappea, django.tasks"),
        SnappeaOnPostgres("snappea-pg", "Snappea", OURS),
        SnappeaOnPostgres("snappea-pg-3", "Snappea, 3 Foremen", processes=3),
        SnappeaOnPostgres("snappea-pg-10", "Snappea, 10 Foremen", processes=10),
        Huey("huey", "Huey"),
        Huey("huey-full", "Huey, FULL", full=True),
        DjangoTaskq("django-taskq", "django-taskq"),
        DjangoTasksDB("django-tasks-db", "django-tasks-db"),
        DjangoOx("django-ox", "django-ox"),
        DjQueue("dj-queue", "dj-queue"),
        SteadyQueue("steady-queue", "steady-queue"),
        Potatoq("potatoq", "potatoq"),
        DjangoQ2("django-q2", "django-q2"),
        WakaQ("wakaq", "WakaQ"),
        Dramatiq("dramatiq", "dramatiq"),
        Celery("celery", "Celery"),
        RQ("rq", "RQ"),
        Procrastinate("procrastinate", "procrastinate", EVERYTHING | BULK),
        Procrastinate("procrastinate-3", "procrastinate, 3 workers", processes=3),
        Procrastinate("procrastinate-10", "procrastinate, 10 workers", processes=10),
        PgQueuer("pgqueuer", "PgQueuer"),
        PgQueuer("pgqueuer-3", "PgQueuer, 3 workers", processes=3),
        PgQueuer("pgqueuer-10", "PgQueuer, 10 workers", processes=10),
        BeanQueue("beanqueue", "BeanQueue"),
        RawSqlite("sqlite", "sqlite3 alone", "NORMAL"),
        RawSqlite("sqlite-full", "sqlite3 alone, FULL", "FULL"),
    )
}

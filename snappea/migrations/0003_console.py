"""What the console shows: logs of tasks, runs of schedules and changes to them, waiting times, Foreman starts."""

from django.db import migrations, models

from ._columns import AddColumn

LABELS = {
    "futuretask": "Future",
    "pendingtask": "Pending",
    "activetask": "Active",
    "failedtask": "Failed",
    "dirtytask": "Dirty",
    "finishedtask": "Finished",
    "cancelledtask": "Cancelled",
    "dashboard": "Overview",
}


#: The row with an empty name becomes the sum of the other ones of its minute.
ADD_UP = """
    UPDATE snappea_stat SET (done, failed, retried, cancelled, expired, wait_sum, run_sum) = (
        SELECT coalesce(sum(done), 0), coalesce(sum(failed), 0), coalesce(sum(retried), 0),
            coalesce(sum(cancelled), 0), coalesce(sum(expired), 0), coalesce(sum(wait_sum), 0),
            coalesce(sum(run_sum), 0)
        FROM snappea_stat AS one WHERE one.minute = snappea_stat.minute AND one.task_name <> '')
    WHERE id IN (SELECT max(id) FROM snappea_stat WHERE task_name = '' GROUP BY minute)"""


class Migration(migrations.Migration):
    """Adds columns and a table, and replaces two indexes."""

    dependencies = [
        ("snappea", "0002_pause_heard_by"),
    ]

    operations = [
        migrations.CreateModel(
            name="ScheduleRun",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("schedule", models.CharField(max_length=255)),
                ("at", models.DateTimeField()),
                ("task_id", models.BigIntegerField(blank=True, null=True)),
                ("outcome", models.TextField(blank=True, db_default="", default="")),
            ],
        ),
        migrations.RemoveIndex(
            model_name="task",
            name="snappea_kept",
        ),
        migrations.RemoveIndex(
            model_name="task",
            name="snappea_failed",
        ),
        AddColumn(
            model_name="schedule",
            name="declared",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        AddColumn(
            model_name="schedule",
            name="is_added",
            field=models.BooleanField(db_default=False, default=False),
        ),
        AddColumn(
            model_name="stat",
            name="starts",
            field=models.IntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name="stat",
            name="wait_times",
            field=models.TextField(db_default="{}", default="{}"),
        ),
        migrations.AddIndex(
            model_name="stat",
            index=models.Index(fields=["task_name", "minute"], name="snappea_stat_of_task"),
        ),
        migrations.RunSQL(ADD_UP, migrations.RunSQL.noop),
        AddColumn(
            model_name="task",
            name="log",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(
                    models.Q(("status__in", ("ready", "scheduled")), _negated=True),
                    models.Q(("status", "running"), _negated=True),
                ),
                fields=["status", "finished_at"],
                name="snappea_kept_since",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("status", "failed")),
                fields=["exception", "place", "task_name", "finished_at"],
                name="snappea_failures",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("parent_id__isnull", False)), fields=["parent_id"], name="snappea_parent"
            ),
        ),
        migrations.AddIndex(
            model_name="schedulerun",
            index=models.Index(fields=["schedule"], name="snappea_runs"),
        ),
        migrations.AddIndex(
            model_name="schedulerun",
            index=models.Index(
                condition=models.Q(("task_id__isnull", False)), fields=["task_id"], name="snappea_run_of_task"
            ),
        ),
        *(
            migrations.AlterModelOptions(
                name=name,
                options={"default_permissions": (), "verbose_name": label, "verbose_name_plural": label},
            )
            for name, label in LABELS.items()
        ),
        migrations.AlterModelOptions(
            name="task", options={"verbose_name": "task", "verbose_name_plural": "tasks"}
        ),
        migrations.AlterModelOptions(
            name="schedule", options={"verbose_name": "schedule", "verbose_name_plural": "schedules"}
        ),
    ]

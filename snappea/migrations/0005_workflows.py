"""Durable steps, bursts of rate-limited tasks, batches, and places in line for tasks with `fair_by`."""

import django.utils.timezone
from django.db import migrations, models
from django.db.models.functions import Coalesce

import snappea.indexes

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds columns, indexes and tables, and orders waiting tasks by their places."""

    dependencies = [
        ("snappea", "0004_history"),
    ]

    operations = [
        AddColumn(
            model_name="task",
            name="interruptions_forgiven",
            field=models.IntegerField(db_default=0, default=0),
        ),
        AddColumn(
            model_name="task",
            name="steps",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        # limits
        AddColumn(
            model_name="task",
            name="lane_burst",
            field=models.IntegerField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name="opening",
            index=models.Index(fields=["opens_at"], name="snappea_openings"),
        ),
        # batches
        AddColumn(
            model_name="task",
            name="batch_id",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("batch_id__isnull", False)),
                fields=["batch_id", "status"],
                name="snappea_members",
            ),
        ),
        migrations.CreateModel(
            name="Batch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("description", models.TextField(blank=True, db_default="", default="")),
                ("parent_id", models.BigIntegerField(blank=True, null=True)),
                ("total", models.BigIntegerField(db_default=0, default=0)),
                ("succeeded", models.BigIntegerField(db_default=0, default=0)),
                ("on_success", models.TextField(blank=True, null=True)),
                ("on_failure", models.TextField(blank=True, null=True)),
                ("on_complete", models.TextField(blank=True, null=True)),
                ("success_id", models.BigIntegerField(blank=True, null=True)),
                ("failure_id", models.BigIntegerField(blank=True, null=True)),
                ("complete_id", models.BigIntegerField(blank=True, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "batch",
                "verbose_name_plural": "batches",
                "indexes": [
                    models.Index(fields=["finished_at"], name="snappea_batch_end"),
                    models.Index(
                        condition=models.Q(("parent_id__isnull", False)),
                        fields=["parent_id"],
                        name="snappea_batch_parent",
                    ),
                ],
            },
        ),
        # fair share
        AddColumn(
            model_name="task",
            name="fair_key",
            field=models.CharField(blank=True, max_length=200, null=True),
        ),
        AddColumn(
            model_name="task",
            name="turn",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.RemoveIndex(model_name="task", name="snappea_ready"),
        migrations.RemoveIndex(model_name="task", name="snappea_lane"),
        migrations.AddIndex(
            model_name="task",
            index=snappea.indexes.InOrder(
                models.F("is_async"),
                models.F("queue"),
                models.OrderBy(models.F("priority"), descending=True),
                Coalesce("turn", "id"),
                condition=models.Q(("status", "ready"), ("gate", 0)),
                name="snappea_ready",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=snappea.indexes.InOrder(
                models.F("lane"),
                models.F("status"),
                models.F("gate"),
                models.OrderBy(models.F("priority"), descending=True),
                Coalesce("turn", "id"),
                condition=models.Q(("lane__isnull", False)),
                name="snappea_lane",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("turn__isnull", False), ("status", "ready")),
                fields=["fair_key", "is_async", "queue", "priority", "turn"],
                name="snappea_fair",
            ),
        ),
    ]

"""Batches, chains, steps, tags, fair turns, and limits by key."""

import django.utils.timezone
from django.db import migrations, models

import snappea.models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds columns and tables, and replaces an index."""

    dependencies = [
        ("snappea", "0003_console"),
    ]

    operations = [
        migrations.CreateModel(
            name="Batch",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("description", models.TextField(blank=True, default="")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("finished_at", models.DateTimeField(blank=True, null=True)),
                ("parent_id", models.BigIntegerField(blank=True, null=True)),
                ("is_open", models.BooleanField(db_default=True, default=True)),
                ("total", models.IntegerField(db_default=0, default=0)),
                ("succeeded", models.IntegerField(db_default=0, default=0)),
                ("on_success", models.TextField(blank=True, null=True)),
                ("on_failure", models.TextField(blank=True, null=True)),
                ("on_complete", models.TextField(blank=True, null=True)),
                ("success_id", models.BigIntegerField(blank=True, null=True)),
                ("failure_id", models.BigIntegerField(blank=True, null=True)),
                ("complete_id", models.BigIntegerField(blank=True, null=True)),
            ],
            options={
                "verbose_name": "batch",
                "verbose_name_plural": "batches",
            },
        ),
        migrations.CreateModel(
            name="Limit",
            fields=[
                ("lane", models.CharField(max_length=600, primary_key=True, serialize=False)),
                ("max_concurrency", models.IntegerField(blank=True, null=True)),
                ("interval", models.FloatField(blank=True, null=True)),
                ("burst", models.IntegerField(blank=True, null=True)),
            ],
        ),
        migrations.CreateModel(
            name="UniqueUntil",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("until", models.DateTimeField()),
                ("task_id", models.BigIntegerField()),
            ],
        ),
        migrations.RemoveIndex(
            model_name="task",
            name="snappea_ready",
        ),
        AddColumn(
            model_name="task",
            name="batch_id",
            field=models.BigIntegerField(blank=True, null=True),
        ),
        AddColumn(
            model_name="task",
            name="fair_key",
            field=models.CharField(blank=True, max_length=200, null=True),
        ),
        AddColumn(
            model_name="task",
            name="keeps_result",
            field=models.BooleanField(db_default=True, default=True),
        ),
        AddColumn(
            model_name="task",
            name="lane_burst",
            field=models.IntegerField(blank=True, null=True),
        ),
        AddColumn(
            model_name="task",
            name="lane_discards",
            field=models.BooleanField(db_default=False, default=False),
        ),
        AddColumn(
            model_name="task",
            name="steps",
            field=models.TextField(blank=True, null=True),
        ),
        AddColumn(
            model_name="task",
            name="tags",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        AddColumn(
            model_name="task",
            name="then",
            field=models.TextField(blank=True, null=True),
        ),
        AddColumn(
            model_name="task",
            name="turn",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddIndex(
            model_name="task",
            index=snappea.models.InOrder(
                condition=models.Q(("status", "ready"), ("gate", 0)),
                fields=["is_async", "queue", "-priority", "turn"],
                name="snappea_in_turn",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("batch_id__isnull", False)),
                fields=["batch_id", "status"],
                name="snappea_members",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("fair_key__isnull", False), ("status", "ready")),
                fields=["queue", "fair_key", "turn"],
                name="snappea_fair",
            ),
        ),
        migrations.AddIndex(
            model_name="batch",
            index=models.Index(
                condition=models.Q(("parent_id__isnull", False)),
                fields=["parent_id"],
                name="snappea_batches_of",
            ),
        ),
        migrations.AddIndex(
            model_name="uniqueuntil",
            index=models.Index(fields=["until"], name="snappea_unique_until"),
        ),
    ]

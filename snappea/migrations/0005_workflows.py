"""Durable steps, and bursts of rate-limited tasks."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds columns and an index."""

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
    ]

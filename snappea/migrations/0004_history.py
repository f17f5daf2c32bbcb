"""Kept tasks without results, tags, and calls that stay unique for some time."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds columns and a table."""

    dependencies = [
        ("snappea", "0003_console"),
    ]

    operations = [
        AddColumn(
            model_name="task",
            name="keeps_result",
            field=models.BooleanField(db_default=True, default=True),
        ),
        AddColumn(
            model_name="task",
            name="tags",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
        migrations.CreateModel(
            name="UniqueUntil",
            fields=[
                ("key", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("until", models.DateTimeField()),
                ("task_id", models.BigIntegerField()),
            ],
            options={
                "indexes": [models.Index(fields=["until"], name="snappea_unique_until")],
            },
        ),
    ]

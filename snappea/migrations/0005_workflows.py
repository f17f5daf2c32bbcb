"""Durable steps."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds columns."""

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
    ]

"""Calls that are discarded if their limits do not let them start at once."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds a column."""

    dependencies = [
        ("snappea", "0005_workflows"),
    ]

    operations = [
        AddColumn(
            model_name="task",
            name="lane_discards",
            field=models.BooleanField(db_default=False, default=False),
        ),
    ]

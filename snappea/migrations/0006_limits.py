"""Calls that are discarded if their limits do not let them start at once; limits changed at run time."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds a column and a table."""

    dependencies = [
        ("snappea", "0005_workflows"),
    ]

    operations = [
        AddColumn(
            model_name="task",
            name="lane_discards",
            field=models.BooleanField(db_default=False, default=False),
        ),
        migrations.CreateModel(
            name="Limit",
            fields=[
                ("lane", models.CharField(max_length=600, primary_key=True, serialize=False)),
                ("max_concurrency", models.IntegerField(blank=True, null=True)),
                ("rate_interval", models.FloatField(blank=True, null=True)),
                ("rate_burst", models.IntegerField(blank=True, null=True)),
            ],
        ),
    ]

"""Which queues a Foreman serves, where several share a database."""

from django.db import migrations, models

from ._columns import AddColumn


class Migration(migrations.Migration):
    """Adds a column."""

    dependencies = [
        ("snappea", "0007_fair_newcomers"),
    ]

    operations = [
        AddColumn(
            model_name="presence",
            name="queues",
            field=models.TextField(db_default="[]", default="[]"),
        ),
    ]

"""Newcomers in the order of their keys, so that the first ones of each key get their places first."""

from django.db import migrations, models
from django.db.models.functions import Coalesce

import snappea.indexes


class Migration(migrations.Migration):
    """Replaces an index."""

    dependencies = [
        ("snappea", "0006_limits"),
    ]

    operations = [
        migrations.RemoveIndex(model_name="task", name="snappea_new"),
        migrations.AddIndex(
            model_name="task",
            index=snappea.indexes.InOrder(
                Coalesce("fair_key", models.Value("")),
                condition=models.Q(("gate", 1), ("status", "ready")),
                name="snappea_new",
            ),
        ),
    ]

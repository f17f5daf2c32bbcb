"""An index of the tasks that only one Foreman may run, without the entries of tasks that it has run."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds an index."""

    dependencies = [
        ("snappea", "0008_served_queues"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=models.Q(("foreman_id__isnull", False), ("status", "ready")),
                fields=["foreman_id"],
                name="snappea_addressed",
            ),
        ),
    ]

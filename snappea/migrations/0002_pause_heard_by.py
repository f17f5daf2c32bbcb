"""A pause can be confirmed by the Foremen, so that `pause()` returns once it holds."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds the column."""

    dependencies = [("snappea", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="pause",
            name="heard_by",
            field=models.TextField(blank=True, db_default="", default=""),
        ),
    ]

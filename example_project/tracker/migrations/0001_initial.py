import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("project", models.PositiveIntegerField()),
                ("event_id", models.CharField(max_length=32)),
                ("data", models.TextField()),
                ("received_at", models.DateTimeField(auto_now_add=True)),
                ("digested_at", models.DateTimeField(null=True)),
                ("waited", models.FloatField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="Issue",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("project", models.PositiveIntegerField()),
                ("kind", models.CharField(max_length=200)),
                ("place", models.CharField(max_length=300)),
                ("message", models.CharField(max_length=500)),
                ("mailed_at", models.DateTimeField(null=True)),
                (
                    "first_event",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="tracker.event"
                    ),
                ),
            ],
        ),
        migrations.AddField(
            model_name="event",
            name="issue",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="events",
                to="tracker.issue",
            ),
        ),
        migrations.AddConstraint(
            model_name="issue",
            constraint=models.UniqueConstraint(fields=("project", "kind", "place"), name="one_issue"),
        ),
        migrations.AddConstraint(
            model_name="event",
            constraint=models.UniqueConstraint(fields=("project", "event_id"), name="one_event"),
        ),
    ]

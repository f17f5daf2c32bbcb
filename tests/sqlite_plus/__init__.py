"""A database engine that builds on Django's SQLite, as spatialite or that of django-prometheus does."""

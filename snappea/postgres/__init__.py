"""A queue in PostgreSQL."""

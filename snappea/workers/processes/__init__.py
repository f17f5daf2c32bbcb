"""Child processes for isolated tasks."""

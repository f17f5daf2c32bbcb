"""The Foreman: the process that claims, starts and settles tasks."""

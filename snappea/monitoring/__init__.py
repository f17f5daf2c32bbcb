"""The state of the queue, for the admin, the commands and monitoring tools."""

"""Running one task, and returning its Outcome: in a thread, on the event loop or in a child process."""

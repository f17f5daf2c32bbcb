"""Who runs what was claimed: threads, the event loop, and processes for tasks of their own."""

"""Small samples: tasks as they are for another queue, and the same with Snappea, by the manual's tables."""

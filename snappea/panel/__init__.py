"""What the admin shows, and what people may do there."""

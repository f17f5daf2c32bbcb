"""A shop with something of each kind in its queue, to look at the console."""

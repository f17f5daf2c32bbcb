"""A shop whose queue has something of each kind, to look at the console."""

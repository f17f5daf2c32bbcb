"""How things stand: for the admin, the commands, and other programs."""

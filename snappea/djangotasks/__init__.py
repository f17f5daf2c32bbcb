"""Django's own tasks, for the backend: what they are called here, what becomes of them."""

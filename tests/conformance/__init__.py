"""Django's own tests of django.tasks, run against our backend: `python -m tests.conformance`.

They are fetched from the source distribution of the Django that is installed, once, into `.conformance/`.
`backends.py` has what takes the place of Django's own two backends, `excluded.py` what is not run, and why.
"""

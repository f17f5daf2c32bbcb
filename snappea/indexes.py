"""The path by which the first migration imports InOrder."""

from .models import InOrder as InOrder

"""The import path of InOrder in the first migration."""

from .models import InOrder as InOrder

"""An index that serves SQLite and PostgreSQL alike."""

from typing import Any

from django.db import models


class InOrder(models.Index):
    """An index in which rows that are equal lie in the order of their ids.

    In SQLite's they do so by themselves.
    """

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        """Return the statement that makes it, in the words of the database."""
        index = models.Index(*self.expressions, fields=self.fields, name=self.name, condition=self.condition)
        if schema_editor.connection.vendor != "sqlite":
            index.fields_orders = [*self.fields_orders, (model._meta.pk.name, "")]
        return index.create_sql(model, schema_editor, using, **kwargs)

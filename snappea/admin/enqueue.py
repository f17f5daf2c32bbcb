"""The form that enqueues a call: a field for each parameter, as JSON, and the options of `apply_async()`."""

import json
from contextvars import copy_context
from functools import partial
from inspect import BoundArguments, Parameter, formatannotation
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..errors import SnappeaError, UnreadableArguments
from ..models import Task
from ..monitoring.formatting import cut, plain
from ..queue.records import Claim
from ..tasks import context
from ..tasks.arguments import decode
from ..tasks.function import TaskFunction, is_sensitive
from ..tasks.options import MOST
from ..tasks.results import AsyncResult

_OMITTED = object()
_OPTIONS = ("queue", "priority", "countdown")


class Argument(forms.Field):
    """An argument as JSON; left out if the field is empty."""

    widget = forms.Textarea(attrs={"rows": 1, "dir": "auto", "spellcheck": "false"})

    def __init__(self, parameter: Parameter, initial: str) -> None:
        has_default, note = parameter.default is not Parameter.empty, parameter.annotation
        said = "" if note is Parameter.empty else note if isinstance(note, str) else formatannotation(note)
        kinds: Any = {Parameter.VAR_POSITIONAL: list, Parameter.VAR_KEYWORD: dict}
        self.kind: type = kinds.get(parameter.kind, object)
        super().__init__(
            label=str(parameter.replace(annotation=Parameter.empty, default=Parameter.empty)),
            required=self.kind is object and not has_default,
            initial=initial,
            help_text=plain(f"{said} = {parameter.default!r}" if has_default else said),
        )

    def clean(self, value: Any) -> Any:
        """Return the value. Raises ValidationError."""
        if not (value or "").strip():
            self.validate(None)
            return _OMITTED
        try:
            found = json.loads(value)
        except (ValueError, RecursionError) as error:
            said = _('Enter JSON: 5, true, null, "text", [1, 2] or {"key": 1}.')
            raise ValidationError(said) from error
        if not isinstance(found, self.kind):
            raise ValidationError(_("Enter a value of this type: %(type)s") % {"type": self.kind.__name__})
        return found


class CallForm(forms.Form):
    """A call of a task: a field for each parameter. `like`: a row with the arguments to begin with."""

    #: The fields that are before those of the arguments.
    before_arguments: tuple[str, ...] = ()

    def __init__(
        self, task: TaskFunction[..., Any], like: Task | None, data: Any, initial: dict[str, Any]
    ) -> None:
        super().__init__(data, initial=initial)
        self.task = task
        stored = _stored(task, like)
        for name, parameter in task.signature.parameters.items():
            self.fields[f"args.{name}"] = Argument(parameter, stored.get(name, ""))
        self.argument_fields = [name for name in self.fields if name.startswith("args.")]
        self.order_fields([*self.before_arguments, *self.argument_fields])

    def call(self) -> BoundArguments:
        """Return the arguments of a valid form."""
        values = {name: self.cleaned_data[f"args.{name}"] for name in self.task.signature.parameters}
        given = {name: value for name, value in values.items() if value is not _OMITTED}
        return BoundArguments(self.task.signature, given)


class EnqueueForm(CallForm):
    """A call to enqueue. `like`: the new task is linked to it."""

    queue = forms.CharField(label=gettext_lazy("Queue"), required=False, max_length=100)
    priority = forms.IntegerField(label=gettext_lazy("Priority"), required=False)
    countdown = forms.FloatField(
        label=gettext_lazy("Start in, in seconds"), required=False, min_value=0, max_value=MOST
    )

    def __init__(self, task: TaskFunction[..., Any], like: Task | None, data: Any = None) -> None:
        super().__init__(task, like, data, {"queue": like.queue, "priority": like.priority} if like else {})
        self.like = like

    def enqueue(self) -> AsyncResult | None:
        """Enqueue the call of a valid form; None if it is refused, which the form then says."""
        call = self.call()
        options = {name: self.cleaned_data[name] for name in _OPTIONS}
        given = {name: value for name, value in options.items() if value not in (None, "")}
        enqueue = partial(self.task.apply_async, call.args, call.kwargs, **given)
        try:
            return copy_context().run(_enqueue_from, self.like, enqueue) if self.like else enqueue()
        except (SnappeaError, LookupError, TypeError, ValueError) as error:  # the errors of apply_async()
            self.add_error(None, plain(str(error)))
            return None

    def summary(self) -> str:
        """Return what the admin's log says about it, without arguments that must not be shown."""
        said = _("Enqueued, like task #%(id)s") % {"id": self.like.pk} if self.like else _("Enqueued")
        if self.task.options.sensitive or (self.like and self.like.is_sensitive):
            return said
        texts = {str(self.fields[name].label): self.data.get(name, "") for name in self.argument_fields}
        return cut(f"{said}: {', '.join(f'{label}={text}' for label, text in texts.items() if text)}")


def _enqueue_from(like: Task, enqueue: "partial[AsyncResult]") -> AsyncResult:
    """Enqueue a call as if a task did, which makes that task its parent."""
    context.begin(Claim(0, like.pk, like.claims, like.task_name, "[]", "{}"))
    return enqueue()


def _stored(task: TaskFunction[..., Any], like: Task | None) -> dict[str, str]:
    """Return the JSON of the arguments of a stored call by parameter, if they fit and may be shown."""
    if like is None or is_sensitive(like, task):
        return {}
    try:
        args, kwargs = decode(like.args, like.kwargs)
        parameters = task.signature.parameters
        if not any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values()):
            kwargs = {name: kwargs[name] for name in kwargs if name in parameters}  # without those of a hook
        found = task.signature.bind_partial(*args, **kwargs).arguments
        return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items()}
    except (UnreadableArguments, TypeError, RecursionError):
        return {}

"""The form that enqueues a call: a field for each parameter, as JSON, and the options of `apply_async()`."""

import json
from contextvars import copy_context
from functools import partial
from inspect import BoundArguments, Parameter, formatannotation
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

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
from ..tasks.engine import AsyncResult
from ..tasks.function import TaskFunction, is_sensitive
from ..tasks.options import MOST

_OMITTED = object()
_OPTIONS = ("queue", "priority", "countdown")
#: The types that JSON has. A float may be written without a fraction.
_KINDS: dict[Any, Any] = {kind: kind for kind in (bool, int, str, list, dict, NoneType)} | {
    float: (int, float)
}


class Argument(forms.Field):
    """An argument as JSON, of a type that the annotation allows; left out if the field is empty."""

    widget = forms.Textarea(attrs={"rows": 1, "dir": "auto", "spellcheck": "false"})

    def __init__(self, parameter: Parameter, annotation: Any, initial: str) -> None:
        has_default = parameter.default is not Parameter.empty
        is_named = parameter.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        said = "" if annotation is Parameter.empty else formatannotation(annotation)
        super().__init__(
            label=str(parameter.replace(annotation=Parameter.empty, default=Parameter.empty)),
            required=is_named and not has_default,
            initial=initial,
            help_text=plain(f"{said} = {parameter.default!r}" if has_default else said),
        )
        several = list if parameter.kind is Parameter.VAR_POSITIONAL else dict
        self.annotation = annotation if is_named else several

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
        if not _fits(found, self.annotation):
            raise ValidationError(_("Enter a value of this type: %(type)s") % {"type": self.help_text})
        return found


def _fits(value: Any, annotation: Any) -> bool:
    """Return whether a value may be of the annotated type; True if only the task can tell."""
    if get_origin(annotation) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(annotation))
    kinds = _KINDS.get(NoneType if annotation is None else get_origin(annotation) or annotation)
    is_number = isinstance(value, bool) and annotation in (int, float)  # bool is a subclass of int
    return kinds is None or (isinstance(value, kinds) and not is_number)


class EnqueueForm(forms.Form):
    """A call of a task. `like`: a row with the arguments to begin with; the new task is linked to it."""

    queue = forms.CharField(label=gettext_lazy("Queue"), required=False, max_length=100)
    priority = forms.IntegerField(label=gettext_lazy("Priority"), required=False)
    countdown = forms.FloatField(
        label=gettext_lazy("Start in, in seconds"), required=False, min_value=0, max_value=MOST
    )

    def __init__(self, task: TaskFunction[..., Any], like: Task | None, data: Any = None) -> None:
        initial = {"queue": like.queue, "priority": like.priority} if like else {}
        super().__init__(data, initial=initial)
        self.task, self.like = task, like
        stored, hints = _stored(task, like), _hints(task)
        for name, parameter in task.signature.parameters.items():
            annotation = hints.get(name, parameter.annotation)
            self.fields[f"args.{name}"] = Argument(parameter, annotation, stored.get(name, ""))
        self.order_fields([name for name in self.fields if name.startswith("args.")])

    def call(self) -> BoundArguments:
        """Return the arguments of a valid form."""
        values = {name: self.cleaned_data[f"args.{name}"] for name in self.task.signature.parameters}
        given = {name: value for name, value in values.items() if value is not _OMITTED}
        return BoundArguments(self.task.signature, given)

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
        found = {
            name.removeprefix("args."): text for name, text in self.data.items() if name.startswith("args.")
        }
        return cut(f"{said}: {', '.join(f'{name}={text}' for name, text in found.items() if text)}")


def _enqueue_from(like: Task, enqueue: "partial[AsyncResult]") -> AsyncResult:
    """Enqueue a call as if a task did, which makes that task its parent."""
    context.begin(Claim(0, like.pk, like.claims, like.task_name, "[]", "{}"))
    return enqueue()


def _hints(task: TaskFunction[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(task.function)
    except Exception:  # a name that is imported for type checkers only
        return {}


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

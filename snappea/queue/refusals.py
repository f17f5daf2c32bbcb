"""The error of a call that the database refuses. Loaded early: later, nothing may be loadable."""

from ..errors import EnqueueError, QueueUnavailable
from .durable import NotSynced


def refusal(error: Exception, task_name: str) -> EnqueueError:
    """Return the error to raise if the database refuses a call, or several."""
    found, said = explained(error), str(error)
    # if the connection breaks during a commit, its result is unknown
    is_unknown = isinstance(error, NotSynced) or "closed the connection" in said
    written = "It may be enqueued anyway" if is_unknown else "Nothing was written"
    words = said.partition("\n")[0].rstrip(".")
    what = found.what if words in found.what else f"{found.what}: {words}"
    message = f"{task_name} was not enqueued: {what} ({found.cure}). {written}."
    return EnqueueError(message, found.what, found.cure)


def explained(error: Exception) -> QueueUnavailable:
    """Return what is wrong with the queue, and the cure."""
    try:
        from .availability import explain  # large, and rarely needed

        return explain(error)
    except (OSError, ImportError) as failure:  # nothing can be imported, perhaps for too many open files
        what = f"the queue's database refuses: {error}; and: {failure}"
        return QueueUnavailable(what, "look at the limits of this process: ulimit -a")

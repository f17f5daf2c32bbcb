"""Keep the result of a task for a minute, and read it in another process.

Try it: `python -m example_project.recipes results`
"""

from snappea import AsyncResult, task
from snappea.errors import TaskFailed


@task(result_ttl=60)
def divide(a: int, b: int) -> float:
    return a / b


def show() -> None:
    result = divide.delay(1, 2)
    print(f"1 / 2 = {result.get(timeout=10)}")
    print(f"Anywhere else, by its id: {AsyncResult(result.id).get()}")
    try:
        divide.delay(1, 0).get(timeout=10)
    except TaskFailed as error:
        print(f"1 / 0: {error.traceback.splitlines()[-1]}")

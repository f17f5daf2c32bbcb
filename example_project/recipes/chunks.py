"""Split a large job into chunks, and enqueue all of them in one transaction.

Try it: `python -m example_project.recipes chunks`
"""

from collections.abc import Iterator

from snappea import task

SIZE = 100


@task(result_ttl=60)
def send_newsletter(user_ids: list[int]) -> int:
    return len(user_ids)  # one mail for each of them


def chunks(user_ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(user_ids), SIZE):
        yield user_ids[start : start + SIZE]


def show() -> None:
    results = send_newsletter.delay_many([(chunk,) for chunk in chunks(list(range(1, 1001)))])
    sent = sum(result.get(timeout=10) for result in results)
    print(f"{len(results)} tasks, {sent} mails")

"""What the pages about running Snappea show and no test types: output, log lines, files of other programs."""

import ast
import re
import signal
from functools import cache
from pathlib import Path

import pytest
import yaml

from snappea.foreman.statistics import COUNTS
from tests.docs.blocks import BY_PAGE, titled
from tests.docs.manual import PAGES, without_blocks
from tests.projects import Project
from tests.site import DEADLINE, ROOT

pytestmark = pytest.mark.long

SETTINGS = """
INSTALLED_APPS = ["mail", "snappea"]
DATABASES = {"snappea": {"ENGINE": "django.db.backends.sqlite3", "NAME": "snappea.sqlite3"}}
DATABASE_ROUTERS = ["snappea.router.SnappeaRouter"]
DATABASES["default"] = {}
SNAPPEA = {"GRACEFUL_TIMEOUT": 0.5, "NUM_WORKERS": 2}
USE_TZ = True
"""
TASKS = """
import time
from snappea import task

@task
def nap(seconds):
    time.sleep(seconds)

@task(acks_late=True)
def late(seconds):
    time.sleep(seconds)
"""


def shown(page: str, title: str) -> list[str]:
    """Return the lines of a block that has a title."""
    return titled(page, title).splitlines()


@pytest.fixture
def site(tmp_path: Path) -> Project:
    project = Project(
        tmp_path, {"settings.py": SETTINGS, "mail/__init__.py": "", "mail/tasks.py": TASKS}, "settings"
    )
    project.run("django", "migrate", "--database=snappea", "-v0")
    return project


def enqueue_naps(site: Project) -> None:
    site.run("django", "shell", "-c", "from mail.tasks import *\nnap.delay(60)\nlate.delay(60)")


def test_the_log_of_a_stop(site: Project) -> None:
    enqueue_naps(site)
    with site.running("python -m django runsnappea", "tasks ready") as running:
        site.shell("until python -m django snappea status | grep -q ' 2 running'; do sleep 0.1; done")
        running.popen.send_signal(signal.SIGTERM)
        assert running.popen.wait(DEADLINE) == 0
        for line in shown("how-to/deploy.md", "$ journalctl --unit snappea"):
            pattern = re.sub(r"\d+", r"[\\d.]+", re.escape(line))
            assert re.search(pattern, running.output()), (line, running.output())
    assert "mail.tasks.nap" in site.run("django", "snappea", "list", "interrupted")
    assert "mail.tasks.late" in site.run("django", "snappea", "list", "ready")


def test_the_lines_of_status(site: Project) -> None:
    """Word for word, but for names and numbers."""
    enqueue_naps(site)
    with site.running("python -m django runsnappea", "tasks ready"):
        output = site.run("django", "snappea", "status")
    foreman, counts, oldest, empty, head, *queues = shown(
        "how-to/monitor.md", "$ python manage.py snappea status"
    )
    assert re.search(re.sub(r"\d+", r"\\d+", re.escape(counts)), output), output
    assert re.search(r"Foreman: pid \d+ on \S+, for .*, \d+ MB, \d tasks on \d workers", output), output
    assert re.match(r"Foreman: pid \d+ on \S+, for .*, \d+ MB, \d tasks on \d workers$", foreman)
    assert oldest.startswith("The oldest ready task has waited for ") and not empty
    assert re.search(rf"^{re.sub(' +', ' +', head)}$", output, re.MULTILINE), output
    ready, held = (sum(int(line.split()[column]) for line in queues) for column in (1, 2))
    assert f", {ready + held} ready," in counts, "both have the status ready"


def test_an_older_version_of_the_tables(site: Project) -> None:
    (line,) = shown("how-to/upgrade.md", "$ python manage.py runsnappea")
    site.run("django", "migrate", "snappea", "0001", "--database=snappea", "-v0")
    exit_code, output = site.try_to_run("django", "runsnappea")
    assert exit_code == 1
    assert line.replace("/var/lib/tracker", str(site.directory)) in output, output


@cache
def messages() -> tuple[str, ...]:
    """Return all texts in the library."""
    return tuple(
        node.value
        for path in sorted((ROOT / "snappea").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def is_said(text: str) -> bool:
    """Tell whether the library can say it: numbers and names in it are filled in."""
    return any(
        re.fullmatch(re.sub(r"%(\\\.\d)?\w", ".*", re.escape(message)), text)
        for message in messages()
        if len(message) > 10
    )


def test_lines_that_are_hard_to_provoke() -> None:
    for line in shown("how-to/troubleshooting.md", "$ journalctl --unit snappea"):
        assert is_said(line.partition(" ")[2]), line


@pytest.mark.parametrize("page", ["how-to/troubleshooting.md", "how-to/monitor.md"])
def test_messages_that_the_text_quotes(page: str) -> None:
    """Words between quotation marks that begin with a capital letter are part of a message."""
    text = without_blocks(PAGES / page)
    quoted = [
        " ".join(words.split()) for words in re.findall(r'(?<![`\w(])"([A-Z][^"`]{10,}?)[.]{0,3}"', text)
    ]
    for words in quoted:
        parts = [part for part in re.split(r"[\d:() ]*\d+[\d:() ]*", words) if len(part) > 8]
        assert any(all(part.strip() in message for part in parts) for message in messages()), words


def test_the_limits_of_inotify_are_those_that_the_log_names() -> None:
    for line in shown("how-to/troubleshooting.md", "/etc/sysctl.d/60-inotify.conf"):
        name, equals, number = line.split()
        assert equals == "=" and int(number) > 0
        assert any(f"raise {name}" in message for message in messages()), name


def test_the_alerts_use_metrics_that_exist() -> None:
    rules = yaml.safe_load("\n".join(shown("how-to/monitor.md", "/etc/prometheus/snappea.rules.yml")))
    alerts = rules["groups"][0]["rules"]
    assert all(alert["alert"] and alert["annotations"]["summary"] for alert in alerts)
    source = (ROOT / "snappea" / "metrics.py").read_text()
    expressions = " ".join(alert["expr"] for alert in alerts)
    for name in set(re.findall(r"snappea_(\w+)", expressions)):
        assert f'_family("{name}"' in source, name
    assert set(re.findall(r'how="(\w+)"', expressions)) <= set(COUNTS)
    scrape = yaml.safe_load("\n".join(shown("how-to/monitor.md", "/etc/prometheus/prometheus.yml")))
    (job,) = scrape["scrape_configs"]
    paths = "".join(block.text for block in BY_PAGE["how-to/monitor.md"] if block.title == "proj/urls.py")
    assert f'path("{job["metrics_path"].strip("/")}/", metrics)' in paths

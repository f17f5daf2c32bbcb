"""A Foreman that a web server brings along, as a child of its own.

Between the two is the companion: a small process without Django, which starts the Foreman, restarts it when
it ends, and stops it with the server, however that ends. On SQLite the Foreman waits while another one is at
work, so any number of servers can bring one along.
"""

import atexit
import ctypes
import os
import signal
import subprocess
import sys
import time

#: How often the companion checks that the server is alive, in seconds.
LOOK_EVERY = 1.0
#: The wait before a Foreman that has ended starts again, in seconds. It doubles while Foremen end soon.
FIRST_DELAY, LONGEST_DELAY = 1.0, 30.0
#: What systemd tells the server alone.
FOR_THE_SERVER = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
_PR_SET_PDEATHSIG = 1
_companions: list["subprocess.Popen[bytes]"] = []  # the last one, and those before it that still stop


def start(command: list[str], **variables: str) -> None:
    """Keep a Foreman running from now on. Stop the one that this process has started before.

    `command`: starts it. `variables`: of its environment.
    """
    if _companions:
        _companions[-1].terminate()
    _companions[:] = [one for one in _companions if one.poll() is None]
    arguments = [sys.executable, "-P", __file__, str(os.getpid()), *command]
    environment = {name: value for name, value in os.environ.items() if name not in FOR_THE_SERVER}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _signals())  # until the companion waits for them
    try:
        # a session of its own: Ctrl-C is for the server
        kept = subprocess.Popen(
            arguments, env=environment | variables, stdin=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    _companions.append(kept)


def follow_runserver() -> None:
    """Bring a Foreman along with `runserver`; with its autoreloader, as a child of the process that stays."""
    from django.utils.autoreload import DJANGO_AUTORELOAD_ENV  # the companion itself does without Django

    if sys.platform != "win32" and os.environ.get(DJANGO_AUTORELOAD_ENV) != "true":
        start([sys.executable, *sys.orig_argv[1 : 1 - len(sys.argv)], "runsnappea", "--wait"])
        atexit.register(stop)


def stop() -> None:
    """Stop the Foreman as SIGTERM does, and wait until it has ended. A signal now stops it at once."""

    def hurry(_number: int, _frame: object) -> None:
        for one in _companions:
            one.send_signal(signal.SIGQUIT)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hurry)
    if _companions:
        _companions[-1].terminate()
    for one in _companions:
        one.wait()


def _signals() -> set[signal.Signals]:
    return {getattr(signal, f"SIG{name}") for name in ("TERM", "INT", "QUIT", "CHLD", "ALRM")}


def _keep(server: int, command: list[str]) -> None:
    """Keep a command running until a signal arrives or the server is gone. Then end it, and wait for it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _signals())
    signal.setitimer(signal.ITIMER_REAL, LOOK_EVERY, LOOK_EVERY)
    pid, began, delay, is_stopping = 0, -LONGEST_DELAY, 0.0, False
    while pid or not is_stopping:
        if not pid and time.monotonic() >= began + delay:
            pid, began = _spawn(command), time.monotonic()
        number = signal.sigwait(_signals())
        is_told = number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
        if is_told or (os.getppid() != server and not is_stopping):
            is_stopping = True
            for each in (signal.SIGTERM, signal.SIGINT) if number == signal.SIGQUIT else (signal.SIGUSR2,):
                if pid:
                    os.kill(pid, each)
        ended, status = os.waitpid(pid, os.WNOHANG) if pid else (0, 0)
        if ended:
            pid, lived = 0, time.monotonic() - began
            began, delay = began + lived, FIRST_DELAY if lived > LONGEST_DELAY else max(FIRST_DELAY, delay)
            if not is_stopping:
                _report(ended, os.waitstatus_to_exitcode(status), delay)
            delay = min(2 * delay, LONGEST_DELAY)


def _spawn(command: list[str]) -> int:
    """Start a command that ends with this process. Return its pid."""
    companion = os.getpid()
    if pid := os.fork():
        return pid
    if prctl := getattr(ctypes.CDLL(None), "prctl", None):  # Linux only
        prctl(_PR_SET_PDEATHSIG, signal.SIGUSR2, 0, 0, 0)
    if os.getppid() != companion:
        os._exit(1)  # it has ended before
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execv(command[0], command)


def _report(pid: int, exit_code: int, delay: float) -> None:
    said = f"The Foreman (pid {pid}) has ended with exit code {exit_code}. It starts again in {delay:g} s."
    print(time.strftime("%Y-%m-%d %H:%M:%S"), "WARNING", said, file=sys.stderr, flush=True)


if __name__ == "__main__":
    _keep(int(sys.argv[1]), sys.argv[2:])

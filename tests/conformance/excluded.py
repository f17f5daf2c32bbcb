"""Which of Django's tests are not run, and why: each is about what ImmediateBackend cannot do."""

IMMEDIATE = "tasks.test_immediate_backend.ImmediateBackendTestCase"
EXCLUDED = {
    f"{IMMEDIATE}.test_cannot_get_result": "ours can: supports_get_result",
    f"{IMMEDIATE}.test_cannot_refresh_result": "ours can: supports_get_result",
    f"{IMMEDIATE}.test_cannot_pass_run_after": "ours can: supports_defer",
    f"{IMMEDIATE}.test_throws_keyboard_interrupt": (
        "it cannot run a task anywhere but in its caller, whom Ctrl-C is meant for; on a worker of ours a "
        "KeyboardInterrupt is a failure like any other"
    ),
}

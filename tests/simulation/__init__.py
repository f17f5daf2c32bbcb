"""A simulation of the Foreman's decisions: the real Foreman and the real database, and all else on one clock.

Processes are threads of which one runs at a time. A thread gives way before each of its SQL statements, for a
time that its own random numbers choose; then whatever is due next goes on. So the seed decides the order of
all events, other processes come between any two statements between which they really can, and hours pass
within a second.

    timeline    the clock, the threads and what is due
    database    gives way before each statement; refuses and breaks commits
    host        the Foreman's host: wakeups that may be lost
    pool        workers and the event loop, which run no code
    tasks       the tasks
    clients     what other processes do
    ledger      what was promised, checked after each commit
    life        some hours with several Foremen
    shrinking   the shortest history that still fails
    planted     faults that the simulation must find
"""

"""Work on conda environments, done by a child process: its jobs, what it tells, and how the parent runs it.

The agent never imports rattler or conda_lock: they take time to load and memory to keep, and of what rattler does in
Rust only the end of its process is a real cancel. This package knows processes and messages; what is done for a job
stands in ``locking``, ``building`` and ``channel``.
"""

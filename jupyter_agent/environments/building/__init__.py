"""From a lock to a prefix: download, link, pip, compile, check; by a child process (``making``, ``verifying``).

Each part is loaded by whoever needs it: a warm build is to take hardly longer than rattler alone. It does not know
which prefixes there are, nor when one counts as ready.
"""

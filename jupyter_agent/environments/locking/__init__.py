"""From what is asked for to what is installed: a conda-lock.yml, the same bytes for the same input."""

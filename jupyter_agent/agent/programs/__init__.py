"""What a home can be asked to do without its agent, a program each."""

"""A home in one file: made while agent and hub go on, and brought back as a whole or not at all."""

"""The gate: the extension of the Jupyter server through which a page reaches the agent.

It authenticates, authorizes and forwards; it never works itself. Nothing of the agent is imported, and nothing is
started before somebody asks for it.
"""

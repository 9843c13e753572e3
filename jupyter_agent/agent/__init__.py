"""The agent: the link to OpenFlow, the commands that come over it, the one funnel through which every run starts."""

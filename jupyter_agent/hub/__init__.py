"""The embedded OpenFlow: a document store, files, queues and watches for one home, on the wire of the real server."""

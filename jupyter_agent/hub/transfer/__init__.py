"""Taking everything out of a hub, and bringing it into another or into an OpenFlow.

An export is a folder, or the same in a ``.tar.gz``:

- ``manifest.json``: format, version, when and with what it was made, and the other parts with their size, their number
  of lines and their hash;
- ``collections/<number>.jsonl``: a collection, one document a line as clients of OpenFlow see it (dates in ISO 8601 in
  UTC with milliseconds); histories are collections whose names end in ``_hist``;
- ``passwords.jsonl``, where asked for: ``{"id", "hash"}`` of users;
- ``contents.jsonl``: ``{"id", "bytes", "sha256"}`` of each file, in the order of the documents of ``fs.files``;
- ``files/<id>``: the contents.
"""

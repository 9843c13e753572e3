"""``python -m tests.bench [NAME ...]``: one JSON line a figure."""

from __future__ import annotations

import json
import sys

from tests.bench.figures import BENCHES


def main() -> int:
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"There is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}.", file=sys.stderr)
        return 2
    for name in names:
        for figure in BENCHES[name].measure():
            print(json.dumps(figure.line(BENCHES[name])), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

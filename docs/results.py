"""Puts a comparison's table into a page: `python docs/results.py FOLDER PAGE NAME`.

The page holds `<!-- NAME:begin -->` and `<!-- NAME:end -->`; what stands between them is replaced
by the `table.md` of the comparison in FOLDER.
"""

import sys
from pathlib import Path


def main(folder: str, page: str, name: str) -> None:
    path = Path(page)
    before, _, rest = path.read_text(encoding="utf-8").partition(f"<!-- {name}:begin -->")
    _, _, after = rest.partition(f"<!-- {name}:end -->")
    if not after:
        sys.exit(f"{page} has no markers <!-- {name}:begin --> ... <!-- {name}:end -->")
    table = (Path(folder) / "table.md").read_text(encoding="utf-8").strip()
    marked = f"<!-- {name}:begin -->\n\n{table}\n\n<!-- {name}:end -->"
    path.write_text(f"{before}{marked}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The documents that are made from the model, and where they belong.

After a change of the model:

    python -c "import pathlib, tng.config.documents as d; d.write_documents(pathlib.Path('docs'))"
"""

from __future__ import annotations

import json
import pathlib

from tng.config.manual import manual
from tng.config.schema import json_schema


def documents() -> dict[str, str]:
    """File names in `docs` and their texts."""
    schema = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    return {"CONFIG.md": manual(), "config.schema.json": schema + "\n"}


def write_documents(folder: pathlib.Path) -> None:
    """Write the documents, replacing older ones.

    Args:
        folder: exists already.
    """
    for name, text in documents().items():
        (folder / name).write_text(text, encoding="utf-8")

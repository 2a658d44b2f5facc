"""What MkDocs runs: the pages at the repository's top are pages of the site as well.

So a link from one page to any other is the same on GitHub and on the site, and MkDocs checks them all.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put what is in docs/ below `docs/`, and the pages of the folder above beside that."""
    docs = Path(config.docs_dir)
    theirs = [file for file in files if file.src_dir != str(docs)]
    paths = [f"{docs.name}/{file.src_uri}" for file in files if file.src_dir == str(docs)]
    ours = [File(path, str(docs.parent), config.site_dir, config.use_directory_urls) for path in (*TOP, *paths)]
    return Files([*theirs, *ours])

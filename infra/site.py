"""Links of the documentation's site that leave docs/: to the repository, whose address TALLYMARK_REPOSITORY has.

Without an address such a link becomes its words. MkDocs calls `on_page_markdown` for each page.
"""

import os
import pathlib
import posixpath
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown, page, config, files):
    def outside(link):
        words, path, anchor = link[1], link[2], link[3] or ""
        if ":" in path:
            return link[0]
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), path))
        if path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            raise ValueError(f"{page.file.src_uri} links to {path}, which does not exist")
        repository = os.environ.get("TALLYMARK_REPOSITORY")
        return f"[{words}]({repository}/blob/main/{path}{anchor})" if repository else words

    return LINK.sub(outside, markdown)

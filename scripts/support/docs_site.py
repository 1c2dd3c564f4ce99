"""MkDocs hooks: let the site have pages that stand outside docs/, and links that hold on a git host and in the site.

A link in a document is written as the git host needs it, relative to the document's own file. In the site some pages
stand elsewhere, so their links are rewritten while it is built. Both directions are covered by `PAGES`.
"""

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent.parent
DOCS: Final = "docs/"

# Documents outside docs/, by their path in the repository, and the page each is in the site.
PAGES: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "tenant_schemas/README.md": "engine.md",
}
_SOURCES: Final = {page: source for source, page in PAGES.items()}
# The target of a link or an image, without its anchor. Targets with a scheme lead elsewhere.
_TARGET: Final = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents that stand outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of one page. A target that is no page stays, and MkDocs then warns that it is missing."""
    here = page.file.src_uri
    source = _SOURCES.get(here, DOCS + here)
    return _TARGET.sub(lambda found: in_site(found[1], source, here), markdown)


def in_site(target: str, source: str, page: str) -> str:
    """A link target of the document `source`, as the site's page `page` needs it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    if path not in PAGES and not path.startswith(DOCS):
        return target
    return posixpath.relpath(PAGES.get(path, path.removeprefix(DOCS)), posixpath.dirname(page) or ".")

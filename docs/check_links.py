"""Checks the links between the pages of the built site, and to their headings."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and what can be linked to in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = set(), {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        """HTMLParser calls this at every tag."""
        for name, value in attrs:
            if name == "id":
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.add(value)


site = Path(sys.argv[1]).resolve()
pages = {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}
dead = []
for path, page in pages.items():
    for link in page.links:
        url = urlsplit(link)
        if not (url.scheme or url.netloc):
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            known = target in pages and url.fragment in pages[target].anchors
            if not (known or (target not in pages and target.exists())):
                dead.append(f"{path.relative_to(site)}: {link}")
print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")
sys.exit("\n".join(["Dead links:", *dead]) if dead else 0)

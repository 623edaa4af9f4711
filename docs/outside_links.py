"""For the pages that mkdocs builds: links to files of the repository that the site lacks become text."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for each page."""

    def keep_or_name(link: re.Match[str]) -> str:
        text, target = link[1], PurePosixPath(page.file.src_uri).parent / link[2]
        parts: list[str] = []
        for part in target.parts:
            if part == ".." and parts and parts[-1] != "..":
                parts.pop()
            else:
                parts.append(part)
        if files.get_file_from_path("/".join(parts)) is not None:
            return link[0]
        name = link[2].replace("../", "")
        return f"`{name}`" if name in text else f"{text} (`{name}`)"

    return LINK.sub(keep_or_name, markdown)

"""Every source that the code names by author and year is cited in full in docs/sources.md."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The name before a year: "Cho et al. 2014", "Gal & Ghahramani 2016", "Zaremba, Sutskever and Vinyals (2014)".
NAMED = re.compile(r"([A-Z][\w-]+)(?: et al\.)? \(?((?:19|20)\d\d)\b")


def named_sources() -> dict[tuple[str, str], str]:
    """(author, year) -> a file that names this source."""
    found = {}
    for folder in ("lm", "configs", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            text = re.sub(r"\s*\n\s*#?\s*", " ", path.read_text())  # a name and its year may be on two lines
            found |= dict.fromkeys(NAMED.findall(text), str(path))
    return found


def test_every_named_source_is_cited():
    entries = [entry for entry in (ROOT / "docs" / "sources.md").read_text().split("\n- ") if entry.startswith("**")]
    named = named_sources()
    assert len(named) > 40
    for (author, year), path in named.items():
        assert any(author in entry and year in entry for entry in entries), f"{path}: {author} {year}"

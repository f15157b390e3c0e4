"""Put the repository's address everywhere: python .ci/address.py https://github.com/owner/name

The address stands in ``_config.yml``. Everything else derives from it: links to Colab and Binder, install commands in
the notebooks, badges, the package's metadata. This rewrites all of them, or nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from course_lib import pairs

ROOT = Path(__file__).parent.parent
FORM = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+?)(?:\.git)?/?")


class AddressError(ValueError):
    """An address is not one, or the old one cannot be found."""


def parse(url: str) -> tuple[str, str]:
    """Owner and name of a repository."""
    match = FORM.fullmatch(url)
    if not match:
        raise AddressError(f"expected an address such as https://github.com/owner/name, got {url or 'nothing'!r}")
    return match.group(1), match.group(2)


def current(root: Path = ROOT) -> tuple[str, str]:
    """Owner and name in ``_config.yml``."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    return parse(config["repository"]["url"])


def forms(owner: str, name: str) -> list[str]:
    """How an address is written: by GitHub, Colab and Binder; by GitHub Pages; as the folder of a clone."""
    return [f"{owner}/{name}", f"{owner.lower()}.github.io/{name}", f"cd {name}"]


def replaced(text: str, old: tuple[str, str], new: tuple[str, str]) -> str:
    """The text with every form of the old address replaced; a longer name that begins like it stays."""
    for a, b in zip(forms(*old), forms(*new), strict=True):
        text = re.sub(rf"(?<![\w-]){re.escape(a)}(?![\w-])", b, text)
    return text


def tracked_text(root: Path) -> dict[Path, str]:
    """Every tracked text file with its content, but generated notebooks and tests, which ask ``_config.yml``."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    files = {}
    for name in filter(None, listed.split("\0")):
        path = root / name
        if name.startswith("tests/") or path.suffix == ".ipynb" or not path.is_file():
            continue
        try:
            files[path] = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
    return files


def rewrite(url: str, root: Path = ROOT) -> list[Path]:
    """Replace the current address by ``url`` in every tracked file; returns the files that changed."""
    new, old = parse(url), current(root)
    changed = {}
    for path, text in tracked_text(root).items():
        if (rewritten := replaced(text, old, new)) != text:
            changed[path] = rewritten
    partial = {path: path.with_name(path.name + ".part") for path in changed}
    try:
        for path, text in changed.items():
            partial[path].write_bytes(text.encode("utf-8"))
            partial[path].chmod(path.stat().st_mode)
    except OSError as error:
        for part in partial.values():
            part.unlink(missing_ok=True)
        raise AddressError(f"nothing was changed: {error}") from error
    for path, part in partial.items():
        part.replace(path)
    for path in changed:
        if path.suffix == ".py" and path.with_suffix(".ipynb").is_file():
            pairs.refresh(path, code_may_differ=True)
    return sorted(changed)


def main(arguments: list[str]) -> int:
    try:
        changed = rewrite(arguments[0] if arguments else "")
    except (AddressError, pairs.PairError) as error:
        print(f"address: {error}", file=sys.stderr)
        return 1
    for path in changed:
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The repository's address stands in one place, and everything that derives from it agrees."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from course_lib import pairs

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("address", ROOT / ".ci" / "address.py")
address = importlib.util.module_from_spec(spec)
spec.loader.exec_module(address)

# every way in which an address of this repository can be written, whoever owns it
KNOWN = [
    r"colab\.research\.google\.com/github/([\w-]+/[\w.-]+)/blob",
    r"mybinder\.org/v2/gh/([\w-]+/[\w.-]+)",
    r"git\+https://github\.com/([\w-]+/[\w.-]+?)(?=[\"'\s@#]|\.git)",
    r"git clone https://github\.com/([\w-]+/[\w.-]+)",
    r"repository-code: https://github\.com/([\w-]+/[\w.-]+)",
    r"Repository = \"https://github\.com/([\w-]+/[\w.-]+)\"",
]
PAGES = r"https://([\w-]+)\.github\.io/([\w.-]+)/"


def test_every_address_agrees_with_the_configuration():
    owner, name = address.current()
    found = 0
    for path, text in address.tracked_text(ROOT).items():
        for match in (m for pattern in KNOWN for m in re.finditer(pattern, text)):
            assert match.group(1) == f"{owner}/{name}", f"{path.relative_to(ROOT)}: {match.group()}"
            found += 1
        for match in re.finditer(PAGES, text):
            assert match.groups() == (owner.lower(), name), f"{path.relative_to(ROOT)}: {match.group()}"
            found += 1
    assert found >= 8
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    assert config["html"]["baseurl"] == f"https://{owner.lower()}.github.io/{name}/"


def test_every_chapter_installs_from_and_links_to_the_address():
    owner, name = address.current()
    for path in pairs.sources([ROOT / "notebooks"]):
        text = path.read_text()
        assert f'"course_lib @ git+https://github.com/{owner}/{name}"' in text
        opened = path.relative_to(ROOT).with_suffix(".ipynb").as_posix().replace("/solutions/", "/exercises/")
        assert f"/github/{owner}/{name}/blob/main/{opened})" in text


@pytest.fixture
def copy(tmp_path):
    """A copy of the tracked files, as a repository of its own."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "-A"], cwd=tmp_path, check=True)
    return tmp_path


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".git" not in p.relative_to(folder).parts}


def test_there_and_back_again_changes_nothing_and_pairs_agree_on_the_way(copy):
    before, old = contents(copy), address.current(copy)
    agreed = [pairs.problems(p) for p in pairs.sources([copy / "notebooks"])]
    address.rewrite("https://github.com/Some-School/their.course", copy)
    assert address.current(copy) == ("Some-School", "their.course")
    assert [pairs.problems(p) for p in pairs.sources([copy / "notebooks"])] == agreed
    leftovers = [p for p, text in address.tracked_text(copy).items() if "/".join(old) in text]
    assert leftovers == []
    assert b"cd their.course" in (copy / "CONTRIBUTING.md").read_bytes()
    address.rewrite("https://github.com/" + "/".join(old), copy)
    assert contents(copy) == before


def test_a_longer_name_is_left_alone():
    text = "me/course me/course-lib me/course.git you/me/course2 cd course cd courses"
    assert (
        address.replaced(text, ("me", "course"), ("x", "y"))
        == "x/y me/course-lib x/y.git you/me/course2 cd y cd courses"
    )


@pytest.mark.parametrize(
    "url", ["", "me/fork", "http://github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a"]
)
def test_what_is_no_address_is_refused(url, capsys):
    assert address.main([url]) == 1
    assert "expected an address such as https://github.com/owner/name, got" in capsys.readouterr().err

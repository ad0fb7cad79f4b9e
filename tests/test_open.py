"""Binder and Colab as far as one machine tells: what repo2docker reads, what pip answers, a lesson in a bare clone."""

import os
import re
import shutil
import site
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from conftest import ROOT

BINDER, COLAB = ROOT / ".binder", ROOT / ".colab"


def lines_of(path):
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_binder_installs_what_make_and_conda_install():
    words = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(word["pip"] for word in words if isinstance(word, dict))
    asked = lines_of(BINDER / "requirements.txt")
    assert [line.replace("../", "") for line in asked] == pip, "the same words, and no version of its own"
    for line in asked:  # pip reads `--constraint` from the folder of the file, `--editable` from where it runs
        if line.startswith("--constraint"):
            assert (BINDER / line.split()[1]).resolve() == ROOT / "constraints.txt"
    assert "--constraint constraints.txt" in (ROOT / "Makefile").read_text()


def test_binder_takes_the_python_of_conda_and_settings():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    python = settings["DEFAULT"]["min_python"]
    assert (BINDER / "runtime.txt").read_text().strip() == f"python-{python}"
    assert f"python={python}" in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_binder_has_no_file_that_repo2docker_would_read_in_place_of_these():
    assert {p.name for p in BINDER.iterdir()} == {"requirements.txt", "runtime.txt", "postBuild"}
    assert not (ROOT / "binder").exists(), "repo2docker refuses two folders"


@pytest.mark.parametrize("path", [BINDER / "postBuild", COLAB / "install"], ids=lambda p: p.name)
def test_scripts_are_sound_and_may_be_run(path):
    assert os.access(path, os.X_OK) and path.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", path], check=True)


def copied(folder, *names):
    "A copy of the files that an installation needs."
    for name in ("vbg", ".binder", ".colab"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for name in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "jupyter_server_config.py", *names):
        shutil.copy(ROOT / name, folder)
    return folder


def test_post_build_works_in_an_environment_of_its_own(tmp_path):
    place, env = copied(tmp_path / "repo with blank"), tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    packages = os.pathsep.join(site.getsitepackages())
    environment = dict(PATH=f"{env / 'bin'}:/usr/bin:/bin", HOME=str(tmp_path), PYTHONPATH=packages)
    subprocess.run([place / ".binder" / "postBuild"], env=environment, cwd=tmp_path, check=True)
    config = env / "etc" / "jupyter" / "jupyter_server_config.py"
    assert config.read_bytes() == (ROOT / "jupyter_server_config.py").read_bytes()
    assert [*(place / "vbg" / "core" / "__pycache__").glob("files.*.pyc")]


def install(place, **environment):
    "What pip would do for Colab, told and not done, without asking the index."
    words = ["bash", place / ".colab" / "install", "--dry-run", "--no-index", "--no-build-isolation"]
    python = os.pathsep.join([environment.pop("before", ""), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = os.environ | dict(PATH=python.strip(os.pathsep), PYTHONPATH="") | environment
    return subprocess.run(words, env=env, cwd=place.parent, capture_output=True, text=True, timeout=300)


def test_colab_gets_the_project_and_keeps_what_is_there(tmp_path):
    done = install(copied(tmp_path / "vbg"))
    assert done.returncode == 0, done.stderr[-1500:]
    assert re.search(r"^Would install vbg-[\d.]+$", done.stdout, re.M), done.stdout[-1500:]  # and nothing else
    assert "from -c" in done.stdout or re.search(r"already satisfied: torch[>=]", done.stdout)


def test_colab_stops_where_another_torch_would_have_to_come(tmp_path):
    place, stub = copied(tmp_path / "vbg"), tmp_path / "bin"
    stub.mkdir()
    real = Path(sys.executable)
    (stub / "python3").write_text(
        f'#!/bin/sh\ncase "$*" in *"pip list"*) echo "torch==1.13.0+cu117";; *) exec "{real}" "$@";; esac\n'
    )
    (stub / "python3").chmod(0o755)
    done = install(place, before=str(stub))
    assert done.returncode and "conflicting dependencies" in done.stderr and "Would install" not in done.stdout
    assert "depends on torch>=2.6" in done.stdout


def test_links_to_binder_and_colab_name_notebooks_that_are_there():
    settings = ConfigParser(delimiters=["="])
    settings.read(ROOT / "settings.ini")
    branch = settings["DEFAULT"]["branch"]
    whose = "/".join(settings["DEFAULT"]["git_url"].rsplit("/", 2)[1:])
    found = []
    for page in (ROOT / "README.md", COLAB / "README.md"):
        for address in re.findall(r"https://mybinder\.org[^)\s]*", page.read_text(encoding="utf-8")):
            parts = urlsplit(address)
            assert parts.path == f"/v2/gh/{whose}/{branch}", address
            found += parse_qs(parts.query)["labpath"]
    assert found and all((ROOT / name).is_file() for name in found)
    said = (COLAB / "README.md").read_text(encoding="utf-8")
    assert f"github.com/github/{whose}" not in said and f"/github/{whose}/blob/{branch}/" in said
    assert f"git clone -q --depth 1 https://github.com/{whose} && bash vbg/.colab/install -q\n%cd vbg\n" in said


def test_a_lesson_opens_from_a_bare_clone_within_two_minutes(tmp_path):
    "In an empty environment and home; the packages are those of this one, as Binder's would be."
    clone = tmp_path / "vbg"
    subprocess.run(["git", "clone", "-q", "--depth", "1", ROOT.as_uri(), clone], check=True)
    environment = dict(PATH=f"{Path(sys.executable).parent}:/usr/bin:/bin", HOME=str(tmp_path), PYTHONPATH=str(clone))
    words = [sys.executable, "-m", "jupyter", "execute", "nbs/models/06_fusion.ipynb"]
    begun = time.monotonic()
    done = subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-1500:]
    assert time.monotonic() - begun < 120
    assert not subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True).stdout

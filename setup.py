"""Install `vbg`: every fact comes from settings.ini, the file nbdev 2 keeps."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]

readme = here / "README.md"
setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else settings["description"],
    long_description_content_type="text/markdown",
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    packages=find_packages(include=["vbg", "vbg.*"]),
    package_data={"": ["*.csv", "*.css", "*.html", "*.js", "*.md"], "vbg.models": ["weights/*/*"]},
    include_package_data=True,
    python_requires=f">={settings['min_python']}",
    install_requires=settings["requirements"].split(),
    extras_require={
        "dev": settings["dev_requirements"].split(),
        "pretrained": settings["pretrained_requirements"].split(),
    },
    entry_points={
        "nbdev": [f"{settings['lib_name']}={settings['lib_path']}._modidx:d"],
        "console_scripts": ["vbg = vbg.reports.command:main"],
    },
)

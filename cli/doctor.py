"""`qianmian doctor`: is this machine, this workspace and what it holds fit to work? Each finding says how to mend it."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from cli.console import Output
from cli.options import JsonOption, WorkspaceOption
from cli.times import utc_now
from qianmian.errors import ConfigError, NotReady, QianmianError, UsageError
from qianmian.times import days_between, is_stale
from qianmian.workspace import Workspace, atomic_path

OK, WARN, FAIL = "ok", "warn", "fail"
MARKS = {OK: "[green]ok[/]  ", WARN: "[yellow]warn[/]", FAIL: "[red]fail[/]"}
# distribution → the oldest version that works; Qianmian cannot run without any of them
LIBRARIES = {
    "bentoml": "1.4",
    "duckdb": "1.3",
    "ibis-framework": "11",
    "implicit": "0.7.3",
    "mlflow": "3.1",
    "numpy": "2",
    "pandas": "2.2",
    "pyarrow": "17",
    "rectools-lightfm": "1.17.3",
    "scikit-learn": "1.5",
    "scipy": "1.13",
    "xgboost-cpu": "3",
}
EITHER = {"xgboost-cpu": "xgboost"}  # the wheel with CUDA gives the same package
LOW_DISK_GIB, NO_DISK_GIB = 5.0, 0.5
FAIL_EXIT = 2


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `status` ok, warn or fail; `hint` says how to mend it."""

    check: str
    status: str
    found: str
    hint: str = ""


def doctor(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port `serve` is to use.")] = 3000,
    init_settings: Annotated[
        bool,
        typer.Option(
            "--init-settings",
            help="Write qianmian.yaml, every setting with its default and a comment, into the workspace and stop.",
        ),
    ] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the machine, the libraries and the workspace; exit 2 where something fails."""
    output, place = Output(as_json), Workspace.locate(workspace)
    if init_settings:
        write_settings(output, place)
        return
    findings: list[Finding] = []
    with output.working():
        for check in CHECKS:
            findings += check(place, port)
    failed = any(finding.status == FAIL for finding in findings)
    output.result(
        {"workspace": place.root, "healthy": not failed, "findings": [asdict(finding) for finding in findings]}
    )
    for finding in findings:
        output.say(_line(finding), markup=True)
    if failed:
        raise typer.Exit(FAIL_EXIT)


def _line(finding: Finding) -> str:
    from rich.markup import escape

    mend = f"\n       to mend: {escape(finding.hint)}" if finding.hint and finding.status != OK else ""
    return f"{MARKS[finding.status]} {escape(finding.check)}: {escape(finding.found)}{mend}"


def write_settings(output: Output, place: Workspace) -> None:
    """Copy the commented defaults into the workspace; a file that is there is never touched.

    Raises
    ------
    UsageError
        When there is one already.
    """
    target = place.config_file
    if target.exists():
        raise UsageError(
            "there are settings already",
            where=str(target),
            hint="edit that file; remove it first to start from the defaults",
        )
    text = importlib.resources.files("qianmian").joinpath("defaults.yaml").read_text(encoding="utf-8")
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    output.result({"settings": target})
    output.say(f"written: {target}; delete what you do not change, and `qianmian doctor` checks the rest")


def fact(error: QianmianError) -> str:
    """What is wrong and where, without the hint, which has a line of its own."""
    return str(error.as_dict()["message"])


# ---- the checks ------------------------------------------------------------------------------------------------------


def _python(place: Workspace, port: int) -> Iterator[Finding]:
    yield Finding(
        "Python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


def _compiler(place: Workspace, port: int) -> Iterator[Finding]:
    found = next((path for path in map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")) if path), None)
    if found:
        yield Finding("C compiler", OK, found)
    else:
        hint = "needed only to install rectools-lightfm: apt-get install build-essential, or xcode-select --install"
        yield Finding("C compiler", WARN, "none", hint)


def _libraries(place: Workspace, port: int) -> Iterator[Finding]:
    found, wrong = [], []
    for name, least in LIBRARIES.items():
        version = next((version for version in map(_version_of, (name, EITHER.get(name, name))) if version), None)
        if version is None or _numbers(version) < _numbers(least):
            wrong.append(f"{name} {version or 'missing'} (needs {least} or newer)")
        else:
            found.append(f"{name} {version}")
    if wrong:
        yield Finding(
            "libraries", FAIL, ", ".join(wrong), "make install, or pip install --require-hashes -r requirements.lock"
        )
    else:
        yield Finding("libraries", OK, ", ".join(found))


def _version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def _settings(place: Workspace, port: int) -> Iterator[Finding]:
    from qianmian.config import load_settings

    try:
        pack = load_settings(place.config_file).pack
    except QianmianError as error:
        yield Finding("settings", FAIL, error.message.strip(), error.hint or "")
        return
    where = str(place.config_file) if place.config_file.exists() else "the defaults (--init-settings writes them out)"
    yield Finding("settings", OK, where + (f"; industry pack {pack}" if pack else ""))


def _disk(place: Workspace, port: int) -> Iterator[Finding]:
    folder = next(folder for folder in (place.root, *place.root.parents) if folder.exists())
    free = shutil.disk_usage(folder).free / 2**30
    hint = "free some space, or name a --workspace on another disk"
    yield Finding(
        "disk",
        OK if free >= LOW_DISK_GIB else WARN if free >= NO_DISK_GIB else FAIL,
        f"{free:.1f} GiB free at {folder}",
        hint,
    )
    if not os.access(folder, os.W_OK):
        yield Finding(
            "disk",
            FAIL,
            f"{folder} cannot be written to",
            "give this user the right to write there, or name another --workspace",
        )


def _workspace(place: Workspace, port: int) -> Iterator[Finding]:
    try:
        place.require()
    except QianmianError as error:
        yield Finding("workspace", FAIL, f"{place.root}: {error.message}", error.hint or "")
        return
    yield Finding("workspace", OK, str(place.root))
    for name, check in (("lake", _lake), ("profiles", _profiles), ("champions", _champions)):
        try:
            yield from check(place)
        except QianmianError as error:
            yield Finding(name, FAIL, fact(error), error.hint or "")


def _lake(place: Workspace) -> Iterator[Finding]:
    from features.data.lake import Lake

    lake = Lake(place)
    try:
        states = lake.states()
        lake.connect()  # opens the header of every file the manifest names
    except QianmianError as error:
        yield Finding("lake", FAIL, fact(error), error.hint or "")
        return
    if not states:
        yield Finding("lake", FAIL, "empty", "qianmian ingest completejourney")
        return
    rows = ", ".join(f"{name} {state.rows:,}" for name, state in states.items())
    yield Finding("lake", OK, f"{rows}; last row {lake.last or 'undated'}; digest {lake.digest}")
    refused = sum(1 for _ in place.quarantine.rglob("*.parquet")) if place.quarantine.is_dir() else 0
    if refused:
        yield Finding(
            "quarantine",
            WARN,
            f"{refused} file(s) of refused rows",
            f"look at the reason column of {place.quarantine}/*/*.parquet",
        )


def _profiles(place: Workspace) -> Iterator[Finding]:
    from features.data.lake import Lake
    from features.profiles.snapshot import current
    from qianmian.config import load_settings

    try:
        snapshot = current(place)
        stale_after = load_settings(place.config_file).serving.stale_after_days
    except QianmianError as error:
        status = FAIL if error.code == "artifact" else WARN
        yield Finding("profiles", status, fact(error), error.hint or "")
        return
    text = f"{snapshot.table.num_rows:,} customers as of {snapshot.as_of}"
    if snapshot.data_digest != Lake(place).digest:
        yield Finding("profiles", WARN, f"{text}, made of other data than the lake holds now", "qianmian features")
        return
    now = utc_now()
    if is_stale(snapshot.as_of, now, stale_after):
        newer = Lake(place).dated and Lake(place).default_as_of > snapshot.as_of
        mend = "qianmian features: the lake holds newer rows" if newer else "ingest newer data, then qianmian features"
        yield Finding(
            "profiles", WARN, f"{text}, {days_between(snapshot.as_of, now):,.0f} days ago: answers say stale", mend
        )
    else:
        yield Finding("profiles", OK, text)


def _champions(place: Workspace) -> Iterator[Finding]:
    from qianmian.config import load_settings
    from serving.champions import load_from_workspace

    try:
        champions = load_from_workspace(place, load_settings(place.config_file))
    except NotReady as error:
        yield Finding("champions", WARN, error.message, error.hint or "")
        return
    except ConfigError:
        yield Finding("champions", WARN, "not looked at: the settings are wrong", "see settings")
        return
    for problem in champions.problems:
        yield Finding(
            "champion",
            WARN,
            f"{fact(problem)}; the one before it serves",
            "train it again, or qianmian models promote another version",
        )
    broken = {job: error for job, error in champions.failures.items() if job != "profiles"}
    for job, reason in broken.items():
        yield Finding(f"champion {job}", FAIL, fact(reason), f"qianmian models rollback {job}, or qianmian train {job}")
    loaded = ", ".join(f"{job} v{champion.version}" for job, champion in champions.models.items())
    if loaded:
        yield Finding("champions", OK, f"{loaded}; checksums match")
    elif not broken:
        yield Finding("champions", WARN, "none yet", "qianmian train all")


def _port(place: Workspace, port: int) -> Iterator[Finding]:
    from serving.server import check_port

    try:
        check_port("127.0.0.1", port)
    except UsageError as error:
        yield Finding("port", WARN, error.message, error.hint or "")
        return
    yield Finding("port", OK, f"{port} is free on 127.0.0.1")


CHECKS: tuple[Callable[[Workspace, int], Iterator[Finding]], ...] = (
    _python,
    _compiler,
    _libraries,
    _settings,
    _disk,
    _workspace,
    _port,
)

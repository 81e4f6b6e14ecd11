"""The files of launch/: what can be tested on one machine, without a cluster."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from adsq_jax.config import default

ROOT = Path(__file__).parents[1]
LAUNCH = sorted(path for path in (ROOT / "launch").iterdir() if path.is_file())
MILVUS = ROOT / "launch" / "milvus"
SCRIPTS = [
    *(ROOT / "launch").glob("*.sh"),
    *(ROOT / "benchmarks").rglob("*.sh"),
    ROOT / "test.sh",
    ROOT / ".ci" / "run",
]
SHELLCHECK = Path(sysconfig.get_path("scripts")) / "shellcheck"
VERSIONS = ("1.31", kubernetes_validate.latest_version())  # of Kubernetes: the oldest that the file is for, the newest known
PROCESS = """
import json, os, signal, sys, time
from pathlib import Path

folder, flags = Path(os.environ["FOLDER"]), sys.argv[1:]
name = dict(flag.split("=", 1) for flag in flags).get("--process", os.environ.get("NAME"))
signals = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: signals.append(number))
cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
(folder / f"{name}.new").write_text(json.dumps([flags, cores, os.getpid()]))
(folder / f"{name}.new").rename(folder / f"{name}.started")
action, _, value = json.loads(os.environ.get("DO", "{}")).get(name, "wait").partition(" ")
if action == "wait":
    until = time.monotonic() + 60
    while not signals and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)  # is there a second signal?
    (folder / f"{name}.signals").write_text(json.dumps(signals))
elif action == "deaf":
    time.sleep(60)
elif action == "finish":
    (folder / "result.json").touch()
sys.exit(int(value or 0))
"""


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Return a folder whose programs come first on the PATH, as stand-ins; `python -m adsq_jax.main` runs PROCESS."""
    (tmp_path / "process.py").write_text(PROCESS)
    (tmp_path / "bin").mkdir()
    program(tmp_path, "python", f'[[ $1 == -m ]] && shift 2 && set -- "{tmp_path}/process.py" "$@"; exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.delenv("GRACE", raising=False)
    return tmp_path


def program(bench, name, script):
    path = bench / "bin" / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(0o755)


def start(*command, cwd=ROOT):
    """Start a command in its own session, where a hangup has an effect even if the tests ignore it (nohup)."""
    code = "import os, signal, sys\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\nos.execvp(sys.argv[1], sys.argv[1:])"
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", code, *map(str, command)]
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def end(process):
    """Wait for a command, and return its exit status, standard output and standard error."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def started(bench, count):
    """Wait for a number of processes, and return the flags, cores and id of each, in order."""
    until = time.monotonic() + 60
    while len(paths := sorted(bench.glob("*.started"))) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return [json.loads(path.read_text()) for path in paths]


def signals(bench):
    return [json.loads(path.read_text()) for path in sorted(bench.glob("*.signals"))]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def manifest():
    return list(yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text()))


def pod(job):
    return job["spec"]["template"]["spec"]


def lint(*paths):
    return subprocess.run([SHELLCHECK, *paths], capture_output=True, text=True, timeout=60, check=False)


def test_shellcheck_finds_nothing(tmp_path):
    """Every shell script of the repository passes shellcheck, which does report an unquoted variable."""
    assert len(SCRIPTS) >= 8
    report = lint(*SCRIPTS)
    assert (report.returncode, report.stdout) == (0, "")
    (tmp_path / "bad.sh").write_text("#!/bin/sh\nrm $1\n")
    assert "SC2086" in lint(tmp_path / "bad.sh").stdout


def test_headers():
    """Each header says what to edit and how to run, stop and resume; scripts are executable and stop at errors."""
    assert {path.name for path in LAUNCH} == {"kubernetes.yaml", "local.sh", "slurm.sh", "tpu_pod.sh"}
    for path in LAUNCH:
        text = path.read_text()
        header = re.match(r"(#.*\n)+", text)[0]
        assert re.findall(r"^#   (\w+): ", header, re.MULTILINE) == ["Edit", "Run", "Stop", "Resume"], path
        if path.suffix == ".sh":
            assert text.startswith("#!/usr/bin/env bash\n")
            assert "\nset -euo pipefail\n" in text
            assert os.access(path, os.X_OK)


def test_flags_are_those_of_main():
    """adsq_jax.main has each flag that a launch file or its header gives it, and default() has each config key."""
    defined = set(re.findall(r"\bflags\.\w+\(\s*\"(\w+)\"", (ROOT / "adsq_jax" / "main.py").read_text()))
    [script] = pod(manifest()[1])["containers"][0]["args"]  # has flags of no other program
    commands = [script]
    for path in LAUNCH:
        text = path.read_text().replace("\\\n", " ")
        commands += re.findall(r"(?:adsq_jax\.main|launch/\w+\.sh)(\s.*)", text)
    used = {name for command in commands for name in re.findall(r"\s--([a-z][\w.]*)", command)}
    assert used >= {"config", "workdir", "coordinator", "processes", "process"}
    for name in used:
        node = {"config": default()} if name.startswith("config.") else dict.fromkeys(defined)
        for key in name.split("."):
            assert key in node, name
            node = node[key]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schema(version):
    """The manifest is strictly valid; with a misspelt field, or a word for a number, it isn't."""
    service, job = manifest()
    for resource in (service, job):
        kubernetes_validate.validate(resource, version, strict=True)
    job["spec"]["paralelism"] = 4
    with pytest.raises(kubernetes_validate.ValidationError, match="paralelism"):
        kubernetes_validate.validate(job, version, strict=True)
    service, job = manifest()
    pod(job)["terminationGracePeriodSeconds"] = "long"
    with pytest.raises(kubernetes_validate.ValidationError, match="long"):
        kubernetes_validate.validate(job, version, strict=True)


def test_kubernetes_agrees_with_itself():
    """The manifest has one number of processes and one name; all processes can be restarted, and have minutes to save."""
    service, job = manifest()
    spec, [container] = job["spec"], pod(job)["containers"]
    flags = dict(re.findall(r"--(coordinator|processes|process)=(\S+)", container["args"][0]))
    count = spec["completions"]
    assert spec["completionMode"] == "Indexed"
    assert (spec["parallelism"], int(flags["processes"])) == (count, count)
    assert flags["process"] == '"$JOB_COMPLETION_INDEX"'
    name = job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert pod(job)["subdomain"] == service["metadata"]["name"]
    assert re.fullmatch(rf"{name}-0\.{service['metadata']['name']}:\d+", flags["coordinator"])
    assert spec["backoffLimit"] >= 3 * count
    assert pod(job)["restartPolicy"] == "Never"  # what a podFailurePolicy needs
    assert pod(job)["terminationGracePeriodSeconds"] >= 120
    assert container["resources"]["limits"]["nvidia.com/gpu"] > 0
    assert {volume["name"] for volume in pod(job)["volumes"]} == {mount["name"] for mount in container["volumeMounts"]}
    rules = spec["podFailurePolicy"]["rules"]
    by_status = {rule["onExitCodes"]["values"][0]: rule["action"] for rule in rules if "onExitCodes" in rule}
    assert by_status == {2: "FailJob", 75: "Ignore"}  # bad input; saved, not finished
    assert {container["name"]} == {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule}


def start_pod(bench):
    """Start what pod 2 of the manifest would, with the test's folder as its --workdir."""
    [container] = pod(manifest()[1])["containers"]
    [script] = container["args"]
    (bench / "pod.sh").write_text(f"#!/usr/bin/env bash\n{script}")
    assert lint(bench / "pod.sh").stdout == ""
    return start("env", "JOB_COMPLETION_INDEX=2", *container["command"], re.sub(r"workdir=/\S+", f"workdir={bench}", script))


@pytest.mark.parametrize(
    ("does", "stop", "status"),
    [("finish", False, 0), ("fail 3", False, 3), ("wait", True, 75), ("wait 3", True, 3), ("saved", False, 75)],
)
def test_kubernetes_pod(bench, monkeypatch, does, stop, status):
    """A pod passes SIGTERM on. It exits with 0 only with a result, with 75 if its process saved, else as its process."""
    monkeypatch.setenv("DO", json.dumps({"2": does}))
    run = start_pod(bench)
    [[flags, _, pid]] = started(bench, 1)
    assert {"--processes=4", "--process=2", f"--workdir={bench}"} <= set(flags)
    if stop:
        run.send_signal(signal.SIGTERM)
    assert end(run)[0] == status
    assert gone(pid)
    assert signals(bench) == ([[signal.SIGTERM]] if stop else [])


def test_slurm_options():
    """All #SBATCH lines come before the first command; there is a process a GPU, and SIGTERM comes in time to save."""
    text = (ROOT / "launch" / "slurm.sh").read_text()
    header = re.match(r"(#.*\n)+", text)[0]
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(\S*)$", header, re.MULTILINE))
    assert len(options) == text.count("#SBATCH --")
    assert options["requeue"] == ""
    assert options["signal"] == "TERM@120"  # B: would send it to the script
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "gpus-per-task" not in options
    assert int(options["nodes"]) > 1
    assert options["open-mode"] == "append"  # a requeued job keeps its earlier output


@pytest.mark.parametrize(("does", "status", "requeued"), [("finish", 0, False), ("saved", 0, True), ("fail 3", 3, False)])
def test_slurm_script(bench, monkeypatch, does, status, requeued):
    """The job requeues if all processes end with 0 without a result; it ends with the status of a process that failed."""
    program(bench, "srun", 'while [[ $1 == --* ]]; do shift; done; exec "$@"')
    program(bench, "scontrol", 'echo "$@" >"$FOLDER/scontrol"')
    monkeypatch.setenv("NAME", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    monkeypatch.setenv("DO", json.dumps({"0": does}))
    (bench / "slurm.sh").write_text(
        re.sub(r"^workdir=.*", f"workdir={bench}", (ROOT / "launch" / "slurm.sh").read_text(), flags=re.MULTILINE)
    )
    assert end(start("bash", bench / "slurm.sh", "--config.seed=1"))[0] == status
    [[flags, *_]] = started(bench, 1)
    assert {f"--workdir={bench}", "--config.seed=1"} <= set(flags)
    assert (bench / "scontrol").exists() == requeued
    if requeued:
        assert (bench / "scontrol").read_text() == "requeue 17\n"


# Seven starts of the script, each with two hosts.
def test_tpu_pod(bench, monkeypatch):
    """Each host unpacks the commit, makes an environment once, and runs with the flags as given; failures are reported."""
    program(
        bench,
        "gcloud",
        """
        echo "$*" >>"$FOLDER/gcloud"
        for host in 0 1; do
          mkdir -p "$FOLDER/host$host" && cd "$FOLDER/host$host"
          for argument; do
            [[ $argument != *.tar.gz ]] || cp "$argument" .
            [[ $argument != --command=* ]] || HOST=$host HOME=$PWD NAME=$host bash -c "${argument#--command=}"
          done
        done
        """,
    )
    program(
        bench,
        "python3",
        """
        echo "$*" >>"$FOLDER/python$HOST"
        [[ $* != *"uv venv"* ]] || { mkdir -p .venv/bin && cp "$FOLDER/bin/python" .venv/bin; }
        """,
    )
    clone = bench / "clone"
    (clone / "launch").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "tpu_pod.sh", clone / "launch")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test", "-C", clone]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "test"]):
        subprocess.run([*git, *arguments], check=True, timeout=60)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, timeout=60, capture_output=True, text=True).stdout.strip()
    monkeypatch.setenv("DO", json.dumps({"0": "end", "1": "end"}))
    command = [clone / "launch" / "tpu_pod.sh", "NAME", "ZONE", "--config=a b.py", "--workdir=gs://b/it's"]
    for again in (False, True):
        status, _, err = end(start(*command))
        assert (status, err) == (0, "")
        assert [flags for flags, *_ in started(bench, 2)] == [["--config=a b.py", "--workdir=gs://b/it's"]] * 2
        assert (bench / "host1" / f"adsq_jax-{commit}" / "launch" / "tpu_pod.sh").exists()
        assert (bench / "python1").read_text().count("uv venv") == 1
        assert (bench / "python1").read_text().count("uv pip install") == 1 + again
    lines = (bench / "gcloud").read_text().splitlines()
    assert all("--zone=ZONE --worker=all" in line for line in lines if line.startswith("compute"))
    monkeypatch.setenv("DO", json.dumps({"0": "end", "1": "fail 3"}))
    assert end(start(*command))[0] == 3
    with (clone / "launch" / "tpu_pod.sh").open("a") as file:
        file.write("# edited\n")
    for arguments, words in ((command, "commit them first"), (command[:3], "NAME, ZONE or flags are missing")):
        status, out, err = end(start(*arguments))
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert words in err


def local(*arguments):
    return start(ROOT / "launch" / "local.sh", *arguments)


@pytest.mark.parametrize("count", [1, 3])
def test_local_starts_processes(bench, monkeypatch, count):
    """N processes get one coordinator, N, a number each, the flags as given, and equal, separate parts of the cores."""
    monkeypatch.setenv("DO", json.dumps({str(i): "end" for i in range(count)}))
    assert end(local(count, "--config=a b.py", "--workdir=*")) == (0, "", "")
    processes = started(bench, count)
    given = {tuple(flags[:-1]) for flags, *_ in processes}
    assert [flags[-1] for flags, *_ in processes] == [f"--process={i}" for i in range(count)]
    assert len(given) == 1
    *first, coordinator, total = given.pop()
    assert (first, total) == (["--config=a b.py", "--workdir=*"], f"--processes={count}")
    assert re.fullmatch(r"--coordinator=localhost:[1-9]\d+", coordinator)
    if shutil.which("taskset"):
        cores = os.sched_getaffinity(0)
        parts = [set(part) for _, part, _ in processes]
        if len(cores) >= count:
            assert {len(part) for part in parts} == {len(cores) // count}
            assert sum(map(len, parts)) == len(set.union(*parts))
        assert set.union(*parts) <= cores


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_local_passes_signals_on(bench, number):
    """A signal reaches each process once, even Ctrl-C, which a terminal sends to the whole group; then all end."""
    run = local(3)
    processes = started(bench, 3)
    os.killpg(run.pid, number)
    assert end(run) == (0, "", "")
    assert signals(bench) == [[signal.SIGTERM if number == signal.SIGHUP else number]] * 3
    assert all(gone(pid) for *_, pid in processes)


def test_local_ends_all_after_a_failure(bench, monkeypatch):
    """Once a process has failed, those that don't end by themselves are killed, and the status is that of the first."""
    monkeypatch.setenv("DO", json.dumps({"0": "deaf", "1": "fail 7", "2": "deaf"}))
    monkeypatch.setenv("GRACE", "1")
    run = local(3)
    processes = started(bench, 3)
    assert end(run)[:2] == (7, "")
    assert all(gone(pid) for *_, pid in processes)


def test_local_leaves_time_after_a_failure(bench, monkeypatch):
    """Within the grace period the others may end by themselves, and their statuses don't count."""
    monkeypatch.setenv("DO", json.dumps({"0": "wait 9", "1": "fail 7"}))
    run = local(2)
    (*_, pid), _ = started(bench, 2)
    time.sleep(1)
    assert not gone(pid)
    os.kill(pid, signal.SIGTERM)
    assert end(run) == (7, "", "")


@pytest.mark.parametrize(
    "arguments", [[], [""], ["0"], ["-1"], ["two"], ["1.5"], ["08"], ["2\n3"], ["99999999999999999999"], ["--config=x"]]
)
def test_local_refuses(bench, arguments):
    """A missing or wrong number of processes is one line with the expectation and status 2; nothing is started."""
    status, out, err = end(local(*arguments))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("local.sh: ")
    assert "give the number of processes" in err
    assert list(bench.glob("*.started")) == []


def test_milvus_values():
    """The values say what to do with them, are valid YAML for Helm, and have the settings that README names."""
    text = (MILVUS / "values.yaml").read_text()
    assert re.findall(r"^#   (\w+): ", text, re.MULTILINE) == ["Edit", "Run", "Stop", "Resume"]
    values = yaml.safe_load(text)
    inner = yaml.safe_load(values["extraConfigFiles"]["user.yaml"])
    assert inner["common"]["security"]["authorizationEnabled"] is True
    assert inner["queryNode"]["mmap"]["scalarField"] is True
    readme = (MILVUS / "README.md").read_text()
    for name in ("common.security.authorizationEnabled", "queryNode.mmap.scalarField"):
        assert f"`{name}`" in readme


def test_milvus_passes_connections_on():
    """local.py passes every byte on, both ways between its port and the server, and the end of either side."""
    spec = importlib.util.spec_from_file_location("local", MILVUS / "local.py")
    local = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(local)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as front:
        client = socket.create_connection(front.getsockname())
        thread = threading.Thread(target=local.connect, args=(front.accept()[0], server.getsockname()[1]))
        thread.start()
        behind, _ = server.accept()
        with client, behind:
            for one, other in ((client, behind), (behind, client)):
                sent = os.urandom(3 * local.CHUNK + 7)
                writer = threading.Thread(target=one.sendall, args=(sent,))
                writer.start()
                received = b""
                while len(received) < len(sent):
                    received += other.recv(1 << 20)
                writer.join()
                assert received == sent
            behind.shutdown(socket.SHUT_RDWR)
            assert client.recv(1) == b""
        thread.join(60)
        assert not thread.is_alive()

"""Check that a run that is killed again and again ends the same.

    python -m benchmarks.robustness.kills [--kills=20] [--processes=2]

Trains configs/digits.py at toy sizes once, undisturbed. Then starts the same command in another folder, kills it by SIGKILL at
a random moment of training, the B-step, saving or evaluating, and starts it again, until all kills are done and the run ends.
Codes and mAP must be those of the undisturbed run, bit for bit; else, or if a phase was hit too seldom, the exit status is 1.

With --processes=2 launch/local.sh starts the run, and one of its processes is killed: the others must end too.

The package doesn't take part in this: the moment is chosen from the run's files and standard error. The process is stopped
(SIGSTOP) before they are read, so that it is in the same place when it is killed. A checkpoint without its manifest is being
saved; the B-step is what comes between a round's last update and the line of its codes, with the refresh of a bank.
"""

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence, Set
from pathlib import Path

ROOT = Path(__file__).parents[2]
PHASES = ("training", "b_step", "saving", "evaluating")
WAIT = {
    "training": 0.03,
    "b_step": 0.25,
    "saving": 0.15,
    "evaluating": 0.15,
}  # seconds at most from the first sign of it to the kill
TRIES = 40  # looks at a process before it is killed in another phase than intended
LEAST = 3  # kills in each phase
ENDS = 150.0  # seconds in which the other processes must end, once one is killed
SAVES_EVERY = 5  # updates
BITS = 256
STEPS_PER_ROUND = 14  # 1,000 images, 128 a batch, two networks


def flags(rounds: int, bits: int) -> list[str]:
    """Return the config's flags: with checkpoints within rounds, and with many bits a slow B-step."""
    return [
        f"--config={ROOT / 'configs' / 'digits.py'}:bits={bits}",
        f"--config.train.rounds={rounds}",
        "--config.train.epochs_per_round=1",
        "--config.train.batch_size=128",
        "--config.train.log_every=1",
        f"--config.checkpoint.every_steps={SAVES_EVERY}",
        "--config.host_devices=1",
        "--config.model.width=16",
        "--config.model.features=16",
        "--config.label_net.hidden=16",
        "--config.label_net.steps=100",
    ]


class Run:
    """One start of the command; at the end of the context all its processes are killed."""

    def __init__(self, workdir: Path, log: Path, arguments: Sequence[str], *, processes: int):
        """Start the command.

        Args:
          workdir: the run's folder.
          log: the file for its output.
          arguments: flags.
          processes: the number of processes; several are started by launch/local.sh.
        """
        self.workdir, self._log, self.processes = workdir, log, processes
        self._old_unfinished = unfinished(workdir)  # checkpoints that the start before left
        command = [sys.executable, "-m", "adsq_jax.main"] if processes == 1 else [ROOT / "launch" / "local.sh", str(processes)]
        environment = {**os.environ, "PYTHON": sys.executable}
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [*command, *arguments, f"--workdir={workdir}"],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*self.members().values(), self.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
        self.process.wait()

    def members(self) -> dict[int, int]:
        """Return the process group of each training process by its number; each process leads one."""
        if self.processes == 1:
            return {} if self.process.poll() is not None else {0: self.process.pid}
        groups = {}
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                number = re.search(rb"\0--process=(\d+)\0", Path(f"/proc/{child}/cmdline").read_bytes())
                if number:
                    groups[int(number[1])] = int(child)
        return groups

    def output(self) -> str:
        """Return its output so far."""
        return self._log.read_text()

    def restored(self) -> int | None:
        """Return the step that it continued from; None if it started from the beginning."""
        match = re.search(r"^continuing from step (\d+) of", self.output(), re.MULTILINE)
        return int(match[1]) if match else None

    def phase(self) -> str:
        """Return the phase that it is in."""
        return phase_on_disk(self.workdir, self.output(), old=self._old_unfinished)


def last_metrics(workdir: Path) -> dict:
    """Return the last whole line of metrics."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed((workdir / "metrics.jsonl").read_text().split("\n")[:-1]):
            return json.loads(line)
    return {}


def unfinished(workdir: Path) -> set[tuple[str, int]]:
    """Return the checkpoints that lack the file written last: name and inode, since a name may be used again."""
    checkpoints = set()
    with contextlib.suppress(FileNotFoundError):
        for path in (workdir / "checkpoints").iterdir():
            if "tmp" in path.name or (path.name.isdigit() and not (path / "manifest.json").exists()):
                checkpoints.add((path.name, path.stat().st_ino))
    return checkpoints


def phase_on_disk(workdir: Path, output: str, *, old: Set[tuple[str, int]] = frozenset()) -> str:
    """Return the phase that a run is in: one of PHASES, "starting" or, if it is none of them, "between".

    Args:
      workdir: the run's folder.
      output: what it has printed since its start.
      old: the unfinished checkpoints that were there at its start.
    """
    if re.search(r"^running on ", output, re.MULTILINE) is None:  # until then, metrics are those of the start before
        return "starting"
    if not unfinished(workdir) <= old:
        return "saving"
    if "\nencoding " in output and not (workdir / "result.json").exists():
        return "evaluating"
    last = last_metrics(workdir)
    if last.get("phase") == "img_net":
        if last["step"] % STEPS_PER_ROUND == 0:
            return "b_step"
        if last["step"] % (STEPS_PER_ROUND // 2) and last["step"] % SAVES_EVERY:
            return "training"
    return "between"


def wait_for(run: Run, phase: str, *, after: int) -> bool:
    """Wait for the first sign of a phase, or of evaluating.

    Args:
      run: just started.
      phase: one of PHASES.
      after: updates to let pass first.

    Returns:
      False if the run ended before.
    """
    passed, seen = 0, None
    while run.process.poll() is None:
        time.sleep(0.002)
        found = run.phase()
        if found == "starting":
            continue
        last = last_metrics(run.workdir)
        where = (last.get("phase"), last.get("step"))
        passed, seen = passed + (seen is not None and seen != where), where
        if found == "evaluating":
            return True
        if found == phase and passed >= (min(after, 1) if phase == "b_step" else after):
            return True
    return False


def kill(run: Run, phase: str, dice: random.Random) -> dict | None:
    """Kill one process of a run, if possible in a phase, and check that the others end.

    Args:
      run: just started.
      phase: one of PHASES, to aim at.
      dice: chooses the moment and the process.

    Returns:
      What was hit: aimed, phase, the last line of metrics, and the process; None if the run ended before.

    Raises:
      RuntimeError: the others don't end, or end with status 0.
    """
    if not wait_for(run, phase, after=dice.randint(0, 4)):
        return None
    for attempt in range(TRIES):
        time.sleep(dice.uniform(0, WAIT[phase] * (run.processes if attempt == 0 else 0.2)))  # they share the cores
        members = run.members()
        if not members:
            return None
        number = dice.choice(sorted(members))
        try:
            os.killpg(members[number], signal.SIGSTOP)
            hit, last = run.phase(), last_metrics(run.workdir)
            # outside the phase it continues: after a kill there, the next start would be as far from the phase
            go_on = hit != phase and attempt + 1 < TRIES
            os.killpg(members[number], signal.SIGCONT if go_on else signal.SIGKILL)
        except ProcessLookupError:
            return None
        if not go_on:
            break
    killed = time.monotonic()
    status = run.process.wait(ENDS)
    if status == 0 or run.members():
        raise RuntimeError(f"process {number} was killed, the others ended with {status}: {run.output()[-2000:]}")
    return {
        "aimed": phase,
        "phase": hit,
        "last_line": f"{last.get('phase')} {last.get('step')}",
        "process": number,
        "seconds_until_all_ended": round(time.monotonic() - killed, 1),
    }


def run_undisturbed(workdir: Path, log: Path, arguments: Sequence[str], *, processes: int, timeout: float = 600) -> int | None:
    """Run to the end; return the step that it continued from.

    Raises:
      RuntimeError: it failed.
    """
    with Run(workdir, log, arguments, processes=processes) as run:
        if run.process.wait(timeout):
            raise RuntimeError(f"a run that was not killed failed: {run.output()[-2000:]}")
        return run.restored()


def plan(kills: int) -> list[str | None]:
    """Return the phases to aim at: evaluating for the last quarter, as the run ends; before, None, the phase hit least."""
    last = max(1, kills // 4)
    return [*[None] * (kills - last), *["evaluating"] * last]


def campaign(
    folder: Path, aims: Sequence[str | None], *, seed: int, processes: int, rounds: int | None = None, bits: int = BITS
) -> dict:
    """Run once undisturbed and once with kills, in a folder, and compare.

    Args:
      folder: empty.
      aims: a phase for each kill, in order, evaluating last; None: the one of the others that has been hit least.
      seed: of the moments.
      processes: that train together.
      rounds: of the run; None: enough for the kills.
      bits: of the run.

    Returns:
      by_phase: kills; restarts; equal, and what of it; left_over: files and checkpoints that the undisturbed run hasn't; map;
      and kills, each with the step that the next start continued from.
    """
    dice, arguments = random.Random(seed), flags(rounds or 3 + len(aims) // 3, bits)
    whole, killed = folder / "whole", folder / "killed"
    run_undisturbed(whole, folder / "whole.log", arguments, processes=processes)
    kills: list[dict] = []
    restored: list[int | None] = []
    hit: Counter[str] = Counter()
    for number, aim in enumerate(aims):
        phase = aim or min(PHASES[:-1], key=lambda phase: (hit[phase], dice.random()))
        with Run(killed, folder / f"{number}.log", arguments, processes=processes) as run:
            hit_by_kill = kill(run, phase, dice)
            restored.append(run.restored())
        if hit_by_kill is None:  # the run has ended
            break
        kills.append(hit_by_kill)
        hit[hit_by_kill["phase"]] += 1
        print(json.dumps({"went_on_from": restored[-1], **hit_by_kill}), file=sys.stderr, flush=True)
    restored.append(run_undisturbed(killed, folder / "last.log", arguments, processes=processes))
    for one, step in zip(kills, restored[1:], strict=False):
        one["restored"] = step
    same = {
        "codes": codes(whole) == codes(killed),
        "map": result(whole) == result(killed),
        "metrics": metrics(whole) == metrics(killed),
    }
    return {
        "processes": processes,
        "seed": seed,
        "by_phase": {phase: hit[phase] for phase in (*PHASES, *sorted(hit.keys() - set(PHASES)))},
        "restarts": len(kills),
        "equal": all(same.values()),
        "same": same,
        "left_over": sorted(entries(killed) - entries(whole)),
        "map": result(whole)[0],
        "kills": kills,
    }


def entries(workdir: Path) -> set[str]:
    """Return the names in a run's folder and in its checkpoints."""
    return {path.relative_to(workdir).as_posix() for path in [*workdir.iterdir(), *(workdir / "checkpoints").iterdir()]}


def codes(workdir: Path) -> dict[str, bytes]:
    """Return the content of every file of codes."""
    return {path.name: path.read_bytes() for path in sorted((workdir / "codes").glob("*.npy"))}


def result(workdir: Path) -> tuple[float, dict[str, float]]:
    """Return mAP, and that of every query net."""
    content = json.loads((workdir / "result.json").read_text())
    return content["map"], content["map_by_query_net"]


def metrics(workdir: Path) -> list[dict]:
    """Return all lines of metrics without the values that depend on time."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    timed = ("images_per_second", "input_share")
    return [{key: value for key, value in line.items() if key not in timed} for line in lines]


def main() -> None:
    """Kill, compare, print and write."""
    from adsq_jax.devices import host
    from adsq_jax.run import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "kills", help="folder for kills.json")
    parser.add_argument("--kills", type=int, help="number of kills; default: 20, or 8 with several processes")
    parser.add_argument("--processes", type=int, default=1, help="processes that train together, by launch/local.sh")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--rounds", type=int, help="rounds of the run; default: 3, and one for every three kills")
    parser.add_argument("--bits", type=int, default=BITS, help="bits of the run: with fewer, the B-step is harder to hit")
    arguments = parser.parse_args()
    kills = arguments.kills or (20 if arguments.processes == 1 else 8)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adsq_jax_kills_") as folder:
        measured = campaign(
            Path(folder),
            plan(kills),
            seed=arguments.seed,
            processes=arguments.processes,
            rounds=arguments.rounds,
            bits=arguments.bits,
        )
    least = min(LEAST, kills // len(PHASES))
    content = {
        **environment.environment(),
        "machine": f"{os.uname().machine}, {host.cores()} cores",
        "seconds": round(time.monotonic() - began),
        "least_in_each_phase": least,
        **measured,
    }
    print(json.dumps(content, indent=2))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "kills.json" if arguments.processes == 1 else f"kills_{arguments.processes}_processes.json"
    (arguments.out / name).write_text(json.dumps(content, indent=2) + "\n")
    seldom = [phase for phase in PHASES if measured["by_phase"][phase] < least]
    if seldom:
        print(f"hit fewer than {least} times: {', '.join(seldom)}", file=sys.stderr)
    sys.exit(0 if measured["equal"] and not seldom else 1)


if __name__ == "__main__":
    main()

"""Whether a run that is killed again and again ends the same.

`python -m benchmarks.robustness.kills [--kills=20] [--processes=2]`

Trains configs/digits.py at toy sizes once in peace. Then starts the same command in another folder, kills it by SIGKILL at a
random moment of training, the B-step, saving or evaluating, and starts it again, until all kills are spent and the run ends.
Codes and mAP must be those of the run in peace, bit for bit; else, or where a phase was hit too seldom, the exit status is 1.

With --processes=2 the run is launch/local.sh's, and one of its processes is killed: the others end by themselves, or by it.

Nothing in the package knows of this: a moment is found by what is on the disk and on standard error. The process is stopped
(SIGSTOP), and what it was doing is read from its stack by py-spy, `pip install py-spy`, where that is there and may: a stopped
process hasn't moved on when it is killed. Otherwise the disk tells: a checkpoint without its manifest is being saved.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PHASES = ("training", "b_step", "saving", "evaluating")
WAIT = {"training": 0.03, "b_step": 0.25, "saving": 0.15, "evaluating": 0.15}  # seconds at most from its sign to the kill
TRIES = 40  # looks at a process before it is killed in another phase than the one aimed at
LEAST = 3  # kills in each phase
ENDS = 150.0  # seconds in which the rest of a run ends, once one process is killed
SAVES_EVERY = 5  # updates
STEPS_PER_ROUND = 14  # 1,000 images, 128 a batch, two networks
STACKS = {  # functions that a phase is in
    "saving": {"Checkpoints.save adsq_jax/run/checkpoint.py"},
    "b_step": {"update_codes adsq_jax/codes.py"},
    "evaluating": {"evaluate adsq_jax/inference/evaluation.py"},
    "training": {"Trainer.half_round adsq_jax/training/rounds.py", "Trainer._train_label_net adsq_jax/training/rounds.py"},
}


def flags(kills: int) -> list[str]:
    """The config: long enough for so many kills, with a B-step that takes its time, and checkpoints within rounds."""
    return [
        f"--config={ROOT / 'configs' / 'digits.py'}:bits=256",
        f"--config.train.rounds={3 + kills // 3}",
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
    """One start of the command; left as a context, nothing of it is there any more."""

    def __init__(self, workdir: Path, log: Path, arguments: Sequence[str], *, processes: int):
        """Starts it.

        Args:
          workdir: its folder.
          log: the file for what it tells.
          arguments: flags.
          processes: how many; more than one by launch/local.sh.
        """
        self.workdir, self._log, self.processes = workdir, log, processes
        self._left: set[tuple[str, int]] = set()  # unfinished checkpoints of the run before
        self._left = self._unfinished()
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
        """The group of each process that trains, by its number; each leads its own."""
        if self.processes == 1:
            return {} if self.process.poll() is not None else {0: self.process.pid}
        found = {}
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
                number = re.search(rb"\0--process=(\d+)\0", Path(f"/proc/{child}/cmdline").read_bytes())
                if number:
                    found[int(number[1])] = int(child)
        return found

    def said(self) -> str:
        """What it has told."""
        return self._log.read_text()

    def is_under_way(self) -> bool:
        """Whether it has read what is in the folder: before, metrics are those of the run before."""
        return re.search(r"^runs on ", self.said(), re.MULTILINE) is not None

    def restored(self) -> int | None:
        """The step it went on from; None where it began anew."""
        found = re.search(r"^goes on from step (\d+) of", self.said(), re.MULTILINE)
        return int(found[1]) if found else None

    def last(self) -> dict:
        """The last whole line of metrics."""
        with contextlib.suppress(FileNotFoundError):
            for line in reversed((self.workdir / "metrics.jsonl").read_text().split("\n")[:-1]):
                return json.loads(line)
        return {}

    def _unfinished(self) -> set[tuple[str, int]]:
        """Checkpoints without what is written last: name and inode, since a name may come again."""
        found = set()
        with contextlib.suppress(FileNotFoundError):
            for path in (self.workdir / "checkpoints").iterdir():
                if "tmp" in path.name or (path.name.isdigit() and not (path / "manifest.json").exists()):
                    found.add((path.name, path.stat().st_ino))
        return found

    def saves(self) -> bool:
        """Whether there is an unfinished checkpoint that this start began."""
        return not self._unfinished() <= self._left

    def evaluates(self) -> bool:
        """Whether it encodes or measures."""
        return "\nencodes " in self.said() and not (self.workdir / "result.json").exists()

    def by_disk(self) -> str:
        """The phase, as far as files tell."""
        last = self.last()
        if not self.is_under_way():
            return "starting"
        if self.saves():
            return "saving"
        if self.evaluates():
            return "evaluating"
        if last.get("phase") == "img_net":
            if last["step"] % STEPS_PER_ROUND == 0:
                return "b_step"
            if last["step"] % (STEPS_PER_ROUND // 2) and last["step"] % SAVES_EVERY:
                return "training"
        return "between"


def stack_of(pid: int) -> list[str] | None:
    """Functions of this package that a process's main thread is in, innermost first; None where py-spy can't tell."""
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        return None
    done = subprocess.run([program, "dump", "--nonblocking", "--pid", str(pid)], capture_output=True, text=True, timeout=60)
    main = re.search(r'^Thread .*"MainThread"\n((?:    .*\n?)+)', done.stdout, re.MULTILINE)
    if done.returncode or main is None:
        return None
    return [" ".join(found) for found in re.findall(r"^    (\S+) \((adsq_jax/[^:]+):\d+\)$", main[1], re.MULTILINE)]


def phase_of(stack: Sequence[str]) -> str:
    """The phase that a stack is of; `between` for all else, a refresh of the banks too."""
    if "Trainer.refresh_bank adsq_jax/training/rounds.py" in stack:
        return "between"
    return next((phase for phase, functions in STACKS.items() if not functions.isdisjoint(stack)), "between")


def wait_for(run: Run, phase: str, *, after: int) -> bool:
    """Waits for the sign of a phase, or of the last one.

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
        if not run.is_under_way():
            continue
        last = run.last()
        where = (last.get("phase"), last.get("step"))
        passed, seen = passed + (seen is not None and seen != where), where
        if run.evaluates():
            return True
        if phase == "training" and passed >= after and run.by_disk() == "training":
            return True
        if phase == "saving" and passed >= after and run.saves():
            return True
        if phase == "b_step" and where[0] == "img_net" and where[1] % STEPS_PER_ROUND == 0 and not run.saves() and passed > 0:
            return True
    return False


def kill(run: Run, phase: str, dice: random.Random) -> dict | None:
    """Kills one process of a run in a phase, if it can be met, and sees the others end.

    Args:
      run: just started.
      phase: one of PHASES, to aim at.
      dice: chooses the moment and the process.

    Returns:
      What was hit: aimed, phase, and by what it is judged; None where the run ended before.

    Raises:
      RuntimeError: the others don't end, or with status 0.
    """
    if not wait_for(run, phase, after=dice.randint(0, 4)):
        return None
    for attempt in range(TRIES):
        time.sleep(dice.uniform(0, WAIT[phase] * (run.processes if attempt == 0 else 0.2)))  # which share the cores
        members = run.members()
        if not members:
            return None
        number = dice.choice(sorted(members))
        try:
            os.killpg(members[number], signal.SIGSTOP)
            stack, disk, last = stack_of(members[number]), run.by_disk(), run.last()
            hit = disk if stack is None else phase_of(stack)
            # where it isn't yet in the phase, it goes on: a kill elsewhere would leave the next one as far from it
            go_on = hit != phase and attempt + 1 < TRIES
            os.killpg(members[number], signal.SIGCONT if go_on else signal.SIGKILL)
        except ProcessLookupError:
            return None
        if not go_on:
            break
    killed = time.monotonic()
    status = run.process.wait(ENDS)
    if status == 0 or run.members():
        raise RuntimeError(f"process {number} was killed, the rest ended with {status}: {run.said()[-2000:]}")
    return {
        "aimed": phase,
        "phase": hit,
        "by": "disk" if stack is None else "stack",
        "function": stack[0] if stack else None,
        "disk": disk,
        "last_line": f"{last.get('phase')} {last.get('step')}",
        "process": number,
        "seconds_until_all_ended": round(time.monotonic() - killed, 1),
    }


def in_peace(workdir: Path, log: Path, arguments: Sequence[str], *, processes: int, timeout: float = 600) -> int | None:
    """Runs to the end; gives the step it went on from.

    Raises:
      RuntimeError: it failed.
    """
    with Run(workdir, log, arguments, processes=processes) as run:
        if run.process.wait(timeout):
            raise RuntimeError(f"a run that was not killed failed: {run.said()[-2000:]}")
        return run.restored()


def plan(kills: int) -> list[str | None]:
    """The phases to aim at: a quarter in evaluating, when the run is at its end; before, whichever has been hit least."""
    last = max(1, kills // 4)
    return [*[None] * (kills - last), *["evaluating"] * last]


def campaign(folder: Path, aims: Sequence[str | None], *, seed: int, processes: int) -> dict:
    """Runs in peace and killed, in a folder, and compares.

    Args:
      folder: empty.
      aims: a phase for each kill, in order, evaluating last; None: whichever of the others has been hit least.
      seed: of the moments.
      processes: that train together.

    Returns:
      by_phase: kills; restarts; equal, and what of it; left_over: files beside the checkpoints that the run in peace hasn't;
      map; and kills, each with the step that the next start went on from.
    """
    dice, arguments = random.Random(seed), flags(len(aims))
    whole, killed = folder / "whole", folder / "killed"
    in_peace(whole, folder / "whole.log", arguments, processes=processes)
    kills: list[dict] = []
    restored: list[int | None] = []
    hit: Counter[str] = Counter()
    for number, aim in enumerate(aims):
        phase = aim or min(PHASES[:-1], key=lambda phase: (hit[phase], dice.random()))
        with Run(killed, folder / f"{number}.log", arguments, processes=processes) as run:
            found = kill(run, phase, dice)
            restored.append(run.restored())
        if found is None:  # it ended: there is nothing left to kill
            break
        kills.append(found)
        hit[found["phase"]] += 1
        print(json.dumps({"went_on_from": restored[-1], **found}), file=sys.stderr, flush=True)
    restored.append(in_peace(killed, folder / "last.log", arguments, processes=processes))
    for found, step in zip(kills, restored[1:], strict=False):
        found["restored"] = step
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
    """What is in a run's folder and in its checkpoints, by name."""
    return {path.relative_to(workdir).as_posix() for path in [*workdir.iterdir(), *(workdir / "checkpoints").iterdir()]}


def codes(workdir: Path) -> dict[str, bytes]:
    """Every file of codes."""
    return {path.name: path.read_bytes() for path in sorted((workdir / "codes").glob("*.npy"))}


def result(workdir: Path) -> tuple[float, dict[str, float]]:
    """mAP, and that of every query net."""
    found = json.loads((workdir / "result.json").read_text())
    return found["map"], found["map_by_query_net"]


def metrics(workdir: Path) -> list[dict]:
    """All lines, without those values that are of the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    clock = ("images_per_second", "input_share")
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def main() -> None:
    """Kills, tells, and writes."""
    from adsq_jax.devices import host
    from adsq_jax.run import environment

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "kills", help="folder of JSON")
    parser.add_argument("--kills", type=int, help="how many; 20, or 8 of several processes, if left out")
    parser.add_argument("--processes", type=int, default=1, help="that train together, by launch/local.sh")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    kills = arguments.kills or (20 if arguments.processes == 1 else 8)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="adsq_jax_kills_") as folder:
        found = campaign(Path(folder), plan(kills), seed=arguments.seed, processes=arguments.processes)
    least = min(LEAST, kills // len(PHASES))
    content = {
        **environment.environment(),
        "machine": f"{os.uname().machine}, {host.cores()} cores",
        "seconds": round(time.monotonic() - began),
        "least_in_each_phase": least,
        **found,
    }
    print(json.dumps(content, indent=2))
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "kills.json" if arguments.processes == 1 else f"kills_{arguments.processes}_processes.json"
    (arguments.out / name).write_text(json.dumps(content, indent=2) + "\n")
    seldom = [phase for phase in PHASES if found["by_phase"][phase] < least]
    if seldom:
        print(f"hit less than {least} times: {', '.join(seldom)}", file=sys.stderr)
    sys.exit(0 if found["equal"] and not seldom else 1)


if __name__ == "__main__":
    main()

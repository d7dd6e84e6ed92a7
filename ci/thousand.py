"""Measures supervisord and the taskmaster with many programs, and prints a table.

    python3 ci/thousand.py SUPERVISORD TASKMASTER [COUNT]

The processes are counted in /proc, so that no measurement asks the supervisor itself.
"""

import datetime
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The number of processes that are killed, one after the other.
KILLS = 20
# The seconds for which the CPU time is measured while nothing happens.
IDLE = 10
# The time limit of each step, in seconds.
PATIENCE = 120
TICKS = os.sysconf("SC_CLK_TCK")


def main():
    supervisord, taskmaster = (os.path.abspath(program) for program in sys.argv[1:3])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
    # supervisord has three pipes for each program.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory(prefix="thousand-") as place:
        config = Path(place) / "many.conf"
        config.write_text(configuration(count))
        files = ["--logfile", f"{place}/log", "--pidfile", f"{place}/pid"]
        commands = {
            "supervisord 4.3": [supervisord, "--configuration", config, "--nodaemon", "--silent", *files],
            "taskmaster": [taskmaster, config],
        }
        results = {name: measure(command, place, count) for name, command in commands.items()}
    cpus = len(os.sched_getaffinity(0))
    print(f"{count:,} programs, {datetime.date.today()}, {cpus} CPUs, Linux {platform.release()}\n")
    print("| | " + " | ".join(results) + " |")
    print("|---|" + "---|" * len(results))
    for row in next(iter(results.values())):
        print(f"| {row} | " + " | ".join(result[row] for result in results.values()) + " |")


def configuration(count):
    own = f"[supervisord]\nminfds={3 * count + 1000}\n"
    program = "[program:p{0}]\ncommand=/bin/sleep 100000\nstartsecs=0\nautorestart=true\n"
    logs = "stdout_logfile=NONE\nstderr_logfile=NONE\n"
    return own + "".join((program + logs).format(number) for number in range(count))


def measure(command, place, count):
    begin = time.monotonic()
    process = subprocess.Popen(
        command, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(process, lambda: len(children(process.pid)) >= count)
        start = time.monotonic() - begin
        memory = rss(process.pid)
        replacements = [replacement(process, number * 37 % count) for number in range(KILLS)]
        before = cpu_time(process.pid)
        time.sleep(IDLE)
        idle = cpu_time(process.pid) - before
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        stop = time.monotonic() - begin
    finally:
        left = children(process.pid) if process.poll() is None else []
        process.kill()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    return {
        "start of all": f"{start:.2f} s",
        "death to replacement, median": f"{statistics.median(replacements) * 1000:.1f} ms",
        "death to replacement, longest": f"{max(replacements) * 1000:.1f} ms",
        "stop of all": f"{stop:.2f} s",
        "memory (RSS)": f"{memory / 1024:.1f} MiB",
        f"CPU time of {IDLE} idle seconds": f"{idle * 1000:.0f} ms",
    }


def replacement(process, index):
    """Kills a process, and returns the time until another one is there."""
    before = set(children(process.pid))
    victim = sorted(before)[index]
    begin = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    wait_for(process, lambda: set(children(process.pid)) - before, 0)
    return time.monotonic() - begin


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def rss(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def cpu_time(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for(process, condition, pause=0.005):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None:
            sys.exit(f"the supervisor has ended with status {process.returncode}")
        if time.monotonic() > deadline:
            sys.exit("waited too long")
        time.sleep(pause)


main()

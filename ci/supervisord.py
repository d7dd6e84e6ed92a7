"""Runs each configuration with supervisord and with the taskmaster, and compares the processes that they start, and the
states of a timeline of commands.

    python3 ci/supervisord.py SUPERVISORD TASKMASTER [NAME...]

The first lines of a configuration are directives:

    ; processes: GROUP:NAME ...       the expected processes, one of each unless `runs` has a count
    ; runs: GROUP:NAME=COUNT ...      the expected number of a process
    ; environment: NAME=VALUE ...     the environment of both programs
    ; limits: NOFILE=COUNT ...        the soft limits of both programs
    ; root                            the configuration needs root
    ; daemon                          supervisord becomes a daemon
    ; refused                         both refuse the file, with exit status 2
    ; timeline: STEP | STEP ...       what happens while the programs run; after each step the states are compared

A step is a command of supervisorctl, which talks to the socket s.sock, or one of these:

    kill SIGNAL GROUP:NAME            sends a signal to the process
    replace OLD NEW                   replaces a text in the configuration
    until GROUP:NAME STATE            waits until a process has this state
    await FILE COUNT                  waits until a file in the directory has so many lines

Both programs run in the same directory, one after the other, so that the paths are equal. Several configurations run at
the same time.
"""

import concurrent.futures
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections import Counter
from pathlib import Path

FIXTURES = Path("tests/fixtures/supervisord/side-by-side").resolve()
# The time limit for the expected processes, and the time to wait for unexpected ones after that. Both in seconds.
PATIENCE = 20
QUIET = 2


def main():
    global supervisorctl
    supervisord, taskmaster = (os.path.abspath(program) for program in sys.argv[1:3])
    supervisorctl = os.path.join(os.path.dirname(supervisord), "supervisorctl")
    wanted = tuple(sys.argv[3:]) or ("",)
    names = sorted(path.stem for path in FIXTURES.glob("*.conf") if path.name.startswith(wanted))
    if not names:
        sys.exit(f"no configuration has a name that begins with {' or '.join(wanted)}")
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as place:
        os.chmod(place, 0o755)
        one = lambda name: compare(name, Path(place) / name, supervisord, taskmaster)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            results = list(pool.map(one, names))
    width = max(map(len, names))
    for name, (verdict, details) in zip(names, results):
        print(f"   {name:<{width}}  {verdict}")
        for detail in details:
            print(f"      {detail}")
    failed = [name for name, (verdict, _) in zip(names, results) if verdict == "DIFFERENT"]
    skipped = sum(verdict.startswith("SKIPPED") for verdict, _ in results)
    print(f"   {len(names)} configurations, {len(failed)} different, {skipped} skipped")
    sys.exit(1 if failed else 0)


def compare(name, place, supervisord, taskmaster):
    """Returns a verdict, and a line for each difference."""
    directives = directives_of(FIXTURES / f"{name}.conf")
    if "root" in directives and os.getuid() != 0:
        return "SKIPPED: needs root", []
    place.mkdir()
    try:
        theirs = run(directives, place, name, Supervisord(supervisord))
        ours = run(directives, place, name, Taskmaster(taskmaster))
    except (Failed, OSError, subprocess.TimeoutExpired, xmlrpc.client.Error) as failure:
        return "DIFFERENT", [f"{type(failure).__name__}: {failure}"]
    lines = list(differences(theirs, ours, ""))
    processes = len(theirs["processes"])
    verdict = f"same: {processes} processes"
    if "refused" in directives:
        verdict = "refused by both"
        if theirs["exit status"] != 2:
            lines.append(f"exit status {theirs['exit status']}")
    return ("DIFFERENT", lines) if lines else (verdict, [])


class Failed(Exception):
    pass


def directives_of(path):
    directives = {}
    for line in path.read_text().splitlines():
        found = re.fullmatch(r"; (processes|runs|environment|limits|root|daemon|refused|timeline)(?:: (.*))?", line)
        if found:
            directives[found[1]] = (found[2] or "").split()
    return directives


class Supervisord:
    name = "supervisord"

    def __init__(self, program):
        self.program = program

    def command(self, config, place, directives):
        """The log and the pid file are outside of the compared directory."""
        foreground = [] if "daemon" in directives else ["--nodaemon", "--silent"]
        files = ["--logfile", str(place / "supervisord.log"), "--pidfile", str(place / "supervisord.pid")]
        return [self.program, "--configuration", config, *files, *foreground]

    def pid(self, process, place, directives):
        if "daemon" not in directives:
            return process.pid
        file = place / "supervisord.pid"
        wait_for("the pid file", lambda: file.exists() and file.read_text().strip())
        return int(file.read_text())


class Taskmaster:
    name = "taskmaster"

    def __init__(self, program):
        self.program = program

    def command(self, config, place, directives):
        return [self.program, config]

    def pid(self, process, place, directives):
        return process.pid


def run(directives, place, name, supervisor):
    """Returns the processes, files and output of one configuration."""
    work = prepare(place)
    records = place / "records"
    environment = {
        "PATH": f"{work}/bin:/usr/bin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "RECORDS": str(records),
        **dict(pair.split("=", 1) for pair in directives.get("environment", [])),
    }
    streams = {stream: open(place / f"{supervisor.name}.{stream}", "w+b") for stream in ("stdout", "stderr")}
    command = supervisor.command(f"{name}.conf", place, directives)
    process = subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        umask=0o022,
        preexec_fn=lambda: limit(directives.get("limits", [])),
        **streams,
    )
    try:
        if "refused" in directives:
            wait_for("the end of the supervisor", lambda: process.poll() is not None)
            return {"exit status": process.returncode, "processes": {}}
        pid = supervisor.pid(process, place, directives)
        expected = {process: 1 for process in directives["processes"]}
        counts = (entry.rsplit("=", 1) for entry in directives.get("runs", []))
        final = {**expected, **{key: int(count) for key, count in counts}}
        if "timeline" not in directives:
            expected = final
        runs = lambda: Counter(record.name.rsplit("@", 1)[0] for record in records.iterdir())
        complete = lambda: not Counter(expected) - runs()
        wait_for(f"all of {sorted(expected)}", complete)
        if "timeline" in directives:
            steps = " ".join(directives["timeline"]).split(" | ")
            control = Control(Path(supervisorctl), work, f"{name}.conf", environment)
            # Before an `until` the states are on their way.
            settles = [not following.startswith("until ") for following in [*steps[1:], ""]]
            timeline = list(map(control.step, steps, settles))
            expected = final
            wait_for(f"all of {sorted(expected.items())}", complete)
        else:
            # No event reports that all processes have started.
            time.sleep(QUIET)
            timeline = []
        os.kill(pid, signal.SIGTERM)
        wait_for("the end of the supervisor", lambda: process.poll() is not None and not alive(pid))
    except Failed as failure:
        have = sorted(record.name for record in records.iterdir())
        stderr = (place / f"{supervisor.name}.stderr").read_text(errors="replace").strip()
        raise Failed(f"{supervisor.name}: {failure}; processes: {have}; {stderr[-2000:]}") from failure
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    return {
        "timeline": {f"{number} {step}": states for number, (step, states) in enumerate(timeline)},
        "processes": processes_of(records),
        "files": files_of(work),
        "streams": {stream: lines_of(place / f"{supervisor.name}.{stream}") for stream in streams},
    }


class UnixTransport(xmlrpc.client.Transport):
    """XML-RPC through a socket in the file system."""

    def __init__(self, path):
        super().__init__()
        self.path = str(path)

    def make_connection(self, host):
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(self.path)
        return connection


class Control:
    """supervisorctl, which drives both programs."""

    def __init__(self, program, work, config, environment):
        self.command = [program, "-s", f"unix://{work}/s.sock"]
        self.work = work
        self.config = work / config
        self.environment = environment

    def call(self, *arguments):
        run = [*self.command, *arguments]
        done = subprocess.run(run, cwd=self.work, env=self.environment, capture_output=True, timeout=PATIENCE)
        return (done.stdout + done.stderr).decode(errors="replace")

    def states(self):
        """Returns the states when no process is on its way to another one."""
        wait_for("states that stay", lambda: not re.search("=(STARTING|STOPPING)", self.seen()))
        # A probe that is stopped before it has recorded what it was given would be missing in one of the results.
        wait_for("the records", lambda: all(map(self.has_recorded, self.infos().items())))
        return self.seen()

    def has_recorded(self, named):
        name, info = named
        try:
            words = Path(f"/proc/{info['pid']}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return True
        is_probe = len(words) > 1 and words[1].endswith(b"/probe")
        return not is_probe or (self.work.parent / "records" / f"{name}@{info['pid']}").exists()

    def infos(self):
        """Returns what the interface tells, without the time that supervisorctl takes to start."""
        with xmlrpc.client.ServerProxy("http://localhost", transport=UnixTransport(self.work / "s.sock")) as server:
            infos = server.supervisor.getAllProcessInfo()
        return {f"{info['group']}:{info['name']}": info for info in infos}

    def seen(self):
        return " ".join(f"{name}={info['statename']}" for name, info in sorted(self.infos().items()))

    def pid(self, name):
        return self.infos()[name if ":" in name else f"{name}:{name}"]["pid"]

    def step(self, step, settles):
        verb, *rest = step.split()
        if verb == "kill":
            pid = self.pid(rest[1])
            os.kill(pid, getattr(signal, f"SIG{rest[0]}"))
            # The same process is no longer seen, and the next states are those after it.
            wait_for("the end of the process", lambda: self.pid(rest[1]) != pid)
            answer = ""
        elif verb == "replace":
            self.config.write_text(self.config.read_text().replace(*rest))
            answer = ""
        elif verb == "until":
            wait_for(f"{rest[0]} to be {rest[1]}", lambda: self.infos()[rest[0]]["statename"] == rest[1])
            answer = ""
        elif verb == "await":
            file = self.work / rest[0]
            lines = lambda: file.read_text().count("\n") if file.exists() else 0
            wait_for(f"{rest[1]} lines in {rest[0]}", lambda: lines() >= int(rest[1]))
            answer = ""
        else:
            answer = sorted(self.call(verb, *rest).splitlines())
        return step, [answer, self.states() if settles else None]


def limit(limits):
    for name, soft in (one.split("=") for one in limits):
        which = getattr(resource, f"RLIMIT_{name}")
        resource.setrlimit(which, (int(soft), resource.getrlimit(which)[1]))


def wait_for(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"waited too long for {what}")
        time.sleep(0.02)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def prepare(place):
    """Creates the directory in the same state for each run."""
    for name in ("work", "records", "supervisord.log", "supervisord.pid"):
        path = place / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    work = place / "work"
    shutil.copytree(FIXTURES, work)
    # supervisord opens its log after the change of the user.
    place.chmod(0o777)
    work.chmod(0o755)
    for name in ("out", "open", "logs", "bin", "../records"):
        (work / name).mkdir()
        (work / name).chmod(0o777)
    (work / "probe").rename(work / "bin/probe")
    (work / "bin/probe-link").symlink_to("probe")
    (work / "link-to-stdout").symlink_to("/dev/stdout")
    for name in ("old-stdout---mine-abc.log", "old-stdout---mine-abc.log.1", "old-stdout---other-abc.log"):
        (work / "logs" / name).write_text("old\n")
    return work


def processes_of(records):
    processes = {}
    # The order of the runs of a process is not known from their PIDs.
    for name, text in sorted((path.name.rsplit("@", 1)[0], path.read_text()) for path in records.iterdir()):
        processes.setdefault(name, []).append(json.loads(text))
    return processes


def files_of(work):
    """Returns the owner, mode and text of each file. The random part of a generated name is replaced by a star."""
    files = {}
    for path in sorted(path for path in work.rglob("*") if path.is_file() and not path.is_symlink()):
        name = re.sub(r"(---mine-)\w+(\.log)", r"\1*\2", str(path.relative_to(work)))
        stat = path.stat()
        files[name] = [f"{stat.st_mode & 0o7777:04o} {stat.st_uid}:{stat.st_gid}", path.read_text()]
    return files


def lines_of(path):
    """Returns the lines of the programs on the supervisor's stream, sorted, because their order is undefined."""
    return sorted(line for line in path.read_text(errors="replace").splitlines() if line.startswith("probe: "))


def differences(theirs, ours, place):
    if type(theirs) is dict and type(ours) is dict:
        for key in sorted(theirs.keys() | ours.keys()):
            at = f"{place}{key}: "
            if key not in ours:
                yield f"{at}only with supervisord: {theirs[key]!r}"
            elif key not in theirs:
                yield f"{at}only with the taskmaster: {ours[key]!r}"
            else:
                yield from differences(theirs[key], ours[key], at)
    elif type(theirs) is list and type(ours) is list and len(theirs) == len(ours):
        for one, other in zip(theirs, ours):
            yield from differences(one, other, place)
    elif theirs != ours:
        yield f"{place}{theirs!r} with supervisord, {ours!r} with the taskmaster"


main()

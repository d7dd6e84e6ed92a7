"""Runs the taskmaster under strace, which makes one system call fail, or delays it, and checks how it ends.

    python3 ci/errnos.py TASKMASTER [PART]

A first run without a fault finds the calls. Then each kind of call fails at its first, a middle and its last place, once
and for good, and is delayed at every place. With PART, only calls with this text in their names are tried.

Each run starts two programs, asks for their status, restarts and stops them, and shuts down. Whatever fails, the
taskmaster must end in time, must not be killed by a signal or panic, and must leave no process. Its exit status is 0, or
1 or 2 with a message. Only the taskmaster is traced, not its children.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONFIG = """[program:web]
command=sleep 1000
process_name=%(process_num)d
numprocs=2
startsecs=0
stopwaitsecs=2
[program:short]
command=true
startsecs=0
autorestart=false
"""
COMMANDS = ["status", "restart web:*", "status", "stop web:*", "start web:*", "shutdown"]

# The time limit for each step, in seconds: the commands, then SIGTERM, then a second SIGTERM.
PATIENCE = 20 * int(os.environ.get("PIDHERD_TEST_PATIENCE", "1"))

# The errnos of the manual pages that occur without a mistake in the program.
ERRNOS = {
    "openat": ["EMFILE", "ENOMEM", "EACCES"],
    "open": ["EMFILE", "ENOMEM", "EACCES"],
    "clone3": ["EAGAIN", "ENOMEM"],
    "clone": ["EAGAIN", "ENOMEM"],
    "epoll_create1": ["EMFILE", "ENOMEM"],
    "epoll_ctl": ["ENOMEM", "ENOSPC"],
    "epoll_wait": ["EINTR"],
    "epoll_pwait": ["EINTR"],
    "poll": ["ENOMEM", "EINTR"],
    "ppoll": ["ENOMEM", "EINTR"],
    "timerfd_create": ["EMFILE", "ENOMEM"],
    "timerfd_settime": ["EINVAL"],
    "signalfd4": ["EMFILE", "ENOMEM"],
    "eventfd2": ["EMFILE", "ENOMEM"],
    "pipe2": ["EMFILE", "ENFILE"],
    "fcntl": ["EMFILE"],
    "dup3": ["EMFILE"],
    "pidfd_send_signal": ["EPERM", "ESRCH"],
    "pidfd_open": ["EMFILE", "ENOMEM"],
    "waitid": ["EINTR"],
    "read": ["EINTR", "EIO"],
    "write": ["EINTR", "EIO"],
    "writev": ["EINTR", "EIO"],
    "recvmsg": ["ENOMEM", "EINTR"],
    "socket": ["EMFILE", "ENOMEM"],
    "bind": ["EADDRINUSE", "EACCES"],
    "statx": ["EACCES", "ENOMEM"],
    "newfstatat": ["EACCES", "ENOMEM"],
    "getdents64": ["ENOENT"],
    "prctl": ["EINVAL"],
    # The limits of the own process can always be read; rustix relies on that.
    "prlimit64": [],
    "ioctl": ["ENOTTY", "EIO"],
    "unlink": ["EACCES", "EBUSY"],
    "mkdir": ["EACCES", "ENOSPC"],
    "close_range": ["EPERM", "ENOMEM"],
    "setpgid": ["EPERM"],
    "rt_sigprocmask": [],
    "getsockopt": ["ENOPROTOOPT"],
    "setsockopt": ["ENOPROTOOPT"],
}

# Delays of this length widen races, in microseconds.
DELAY = 20_000
DELAYED = ["clone3", "clone", "waitid", "pidfd_send_signal", "read", "timerfd_settime", "epoll_ctl", "epoll_pwait",
           "epoll_wait", "close", "fcntl", "pipe2", "openat", "write"]


class Run:
    """One taskmaster."""

    def __init__(self, taskmaster, injection):
        self.taskmaster, self.injection = taskmaster, injection
        self.problems = []

    def play(self):
        with tempfile.TemporaryDirectory(prefix="pidherd-errnos-") as place:
            place = Path(place)
            (place / "herd.conf").write_text(CONFIG)
            self.trace = place / "trace"
            self.marker = f"PIDHERD_ERRNOS={place.name}"
            key, value = self.marker.split("=")
            command = ["strace", "-o", str(self.trace)]
            command += ["-e", f"inject={self.injection}"] if self.injection else ["-e", "trace=all"]
            command += [self.taskmaster, str(place / "herd.conf")]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, key: value, "RUST_BACKTRACE": "0"}, start_new_session=True)
            self.drive()
            self.lines = self.trace.read_text(errors="replace").splitlines()
        return self

    def drive(self):
        text = "".join(f"{command}\n" for command in COMMANDS).encode()
        for step in ["commands", "SIGTERM", "second SIGTERM"]:
            if step != "commands":
                self.signal_taskmaster()
            try:
                # With SIGTERM there is nothing more to write.
                out, err = self.process.communicate(text if step == "commands" else None, timeout=PATIENCE)
                self.judge(out.decode(errors="replace"), err.decode(errors="replace"))
                break
            except subprocess.TimeoutExpired:
                continue
        else:
            self.problems.append("it hangs")
        left = self.marked()
        for pid, name in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        # A process that may not be signalled stays, and the exit status says so.
        refused = "pidfd_send_signal" in (self.injection or "") and self.process.returncode != 0
        if left and not refused:
            self.problems.append(f"processes are left: {left}")

    def judge(self, out, err):
        code = self.process.returncode
        if "panicked" in err:
            self.problems.append("it panics: " + err[err.find("thread"):][:300])
        if code not in (0, 1, 2):
            self.problems.append(f"it ends with {code}: {err[-300:]}")
        if code in (1, 2) and "taskmaster: " not in err and "error" not in err + out:
            self.problems.append(f"it ends with {code} without a message: {err[-300:]}")

    def marked(self):
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if self.marker.encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((int(entry.name), (entry / "comm").read_text().strip()))
            except OSError:
                pass
        # A process that was killed just now may take a moment.
        if found and not getattr(self, "second_look", False):
            self.second_look = True
            time.sleep(1)
            return self.marked()
        return found

    def signal_taskmaster(self):
        for pid, name in [(pid, name) for pid, name in self.all_marked() if name.startswith("taskmaster")]:
            os.kill(pid, signal.SIGTERM)

    def all_marked(self):
        self.second_look = True
        found = self.marked()
        self.second_look = False
        return found


def places(lines):
    """The calls of the taskmaster itself: the number of each kind before it opens its configuration, and in all."""
    before, counts, begun = {}, {}, False
    for line in lines:
        match = re.match(r"(\w+)\(", line)
        if not match:
            continue
        name = match[1]
        begun = begun or "herd.conf" in line and name.startswith("open")
        counts[name] = counts.get(name, 0) + 1
        if not begun:
            before[name] = counts[name]
    return {name: (before.get(name, 0) + 1, count) for name, count in counts.items() if count > before.get(name, 0)}


def injections(found, part):
    for name, (first, last) in sorted(found.items()):
        if part not in name:
            continue
        for errno in ERRNOS.get(name, []):
            for when in sorted({first, (first + last) // 2, last}):
                yield f"{name}:error={errno}:when={when}"
                # An interruption of every call is no fault of a machine.
                if errno != "EINTR":
                    yield f"{name}:error={errno}:when={when}+"
        if name in DELAYED:
            yield f"{name}:delay_enter={DELAY}:when={first}+"
            yield f"{name}:delay_exit={DELAY}:when={first}+"


def main():
    taskmaster, part = os.path.abspath(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    began = time.monotonic()
    sound = Run(taskmaster, None).play()
    if sound.problems or sound.process.returncode != 0:
        if not sound.lines:
            print("SKIPPED: the taskmaster under strace: strace may not trace", file=sys.stderr)
            return 0
        print(f"without a fault: {sound.process.returncode} {sound.problems}", file=sys.stderr)
        return 1
    found = places(sound.lines)
    unknown = sorted(set(found) - set(ERRNOS) - set(DELAYED))
    tried = list(injections(found, part))
    failures = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for run in pool.map(lambda injection: Run(taskmaster, injection).play(), tried):
            for problem in run.problems:
                failures += 1
                print(f"strace -e inject={run.injection}\n  {problem}")
    seconds = int(time.monotonic() - began)
    print(f"taskmaster: {len(found)} kinds of calls, {len(tried)} runs, {failures} failures, {seconds} s")
    print(f"taskmaster: no fault for {' '.join(unknown)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

//! How the crate is built: a page for contributors.
//!
//! It names files below `src/`. Private items are named without links.
//!
//! # The rooms
//!
//! A *room* is a top-level module of the crate. `tests/tidy` lists the rooms that each room may import, and fails on
//! any other import and on an import cycle between modules. `engine` also imports the data types of the primitives.
//! From the bottom to the top:
//!
//! | room | contents | may import, besides plain data |
//! |---|---|---|
//! | `time`, `signal`, `exit`, `errno`, `random`, `codec`, `growth`, `names` | plain data, its encoding, how lists of it grow, and names for programs | nothing |
//! | `serde_forms` | forms of plain data for the feature `serde` | `engine`, `lifecycle`, `command` |
//! | `guide` | pages of the guide, without code | nothing |
//! | `lifecycle` | the decisions about one process: states, the transition table, policies, stop ladders | nothing |
//! | `group` | the size of a group, its reload plan, the order of a rolling restart | `lifecycle` |
//! | `deadlines` | a heap of deadlines by slot | nothing |
//! | `sys` | system calls without a safe wrapper; the only room with `unsafe` | nothing |
//! | `owner`, `poll`, `procfs`, `timerfd`, `signalfd`, `waker`, `fdset` | primitives, each useful alone | `sys`, other primitives |
//! | `pidfd`, `cgroup`, `notify`, `lost`, `child`, `command`, `launcher` | primitives too | `sys`, other primitives |
//! | `engine` | the decisions about many processes: requests, turns, events | `lifecycle`, `group`, `deadlines` |
//! | `linux` | the real side of the seam | `engine` and the primitives |
//! | `proof` | the simulated side of the seam, for the tests of the library | `engine` and plain data; it makes no system call |
//! | `supervisor` | the calls of the host | every room |
//! | `simulation` | the simulated side of the seam, for hosts (feature `sim`) | `supervisor`, `engine` and plain data |
//!
//! `lifecycle` and `group` are pure: they make no system call and read no clock. The time is an argument. The crate
//! denies unsafe code, and only `sys` allows it. Each unsafe block there has a `SAFETY` comment.
//!
//! # The seam
//!
//! The seam is the interface between decisions and the kernel. `engine/kernel.rs` defines it: the trait `Kernel`. The
//! engine is generic over it, with static dispatch. `linux/core.rs` implements it with descriptors, and `proof/kernel.rs`
//! implements it in virtual time. Everything from outside reaches the engine as one type, `Happening`: the timer
//! expired, a signal arrived, a process sent a report, an orphan ended, or a descriptor of a process is ready. The
//! kernel side finds out what happened. The engine and the lifecycle decide what follows.
//!
//! # From "a pidfd is readable" to "a restart is decided"
//!
//! The path leads through these ten functions in five files:
//!
//! 1. `supervisor/calls.rs`, `Supervisor::process_ready`: finds the entry of the descriptor in the set.
//!    ([`Supervisor::dispatch`](crate::Supervisor::dispatch) reads the epoll instead, and continues at step 3.)
//! 2. `engine/turn.rs`, `Engine::process_token`: serves deadlines that are due, for at most half of the slice.
//! 3. `engine/turn.rs`, `Engine::handle`: takes the next `Happening` of the entry.
//! 4. `linux/core.rs`, `Linux::next`: finds the kind of the entry, here `Happening::Process(slot)`.
//! 5. `engine/core.rs`, `Engine::descriptor_ready` and `Engine::collect`: apply the pending request of the instance,
//!    and read messages that the process may have sent before its end.
//! 6. `linux/core.rs`, `Linux::collect`: reads the readiness descriptor, then calls `waitid(P_PIDFD)`. The exit record
//!    comes back.
//! 7. `engine/core.rs`, `Engine::apply_input`: gives the input `Exited` to the lifecycle.
//! 8. `lifecycle/table.rs`, `Turn::step`: one `match` over state and input. For a process that was running, it calls
//!    `Turn::ended`.
//! 9. `lifecycle/table.rs`, `Turn::ended`: judges the exit by the policy. The next state is `Exited` or `Backoff`, or a
//!    start follows at once. **The restart is decided here.**
//! 10. `engine/reactions.rs`, `Engine::carry_out`: records the run, emits the events, and carries out the action, for
//!     example a spawn.
//!
//! # Where a process is reaped
//!
//! The usual path: `Linux::look` in `linux/core.rs` calls `PidFd::look` with `Wait::Reap`. These reap through a pidfd
//! too:
//!
//! - `wait_for_end` in `linux/watched.rs`, when a process is killed and given up.
//! - `Linux::discard`, for a zombie that kept its number, and `Linux::keep_group` in `linux/keeping.rs`, when no
//!   descriptor is free.
//! - `Spawner::look` and `reap_failed` in `command/flight.rs`, for a child that failed before `execve`, and
//!   `lost.rs`, for a child that was killed and dropped and is slow to end.
//! - `linux/orphans.rs`, for an orphan. It opens a pidfd when the orphan has ended.
//!
//! A child that is bound to the host is reaped by the kernel, and an adopted process by its own parent; their status
//! comes from the pidfd (`PidFd::remembered`). No other code of the supervisor reaps a child, and an exit is never
//! taken with a wait for *any* child.
//!
//! With a stop scope beyond the process, the others of the scope must still be reached by signals after the process has
//! ended. Since Linux 6.9 a pidfd reaches the process group after the leader was reaped. On older kernels the leader
//! stays a zombie until the group is empty, because a zombie keeps its number from being given to another process.
//!
//! # A command of a stop ladder
//!
//! The command runs beside the program, so it has an instance of its own (`engine/stop_command.rs`), which no group counts
//! and `Engine::ids` leaves out. `Turn::send_rung` in `lifecycle/stops.rs` decides `Action::RunStopCommand`, and
//! `Engine::begin_stop_command` starts the instance of the command: a job that is done once. When its lifecycle has come to
//! rest, `Engine::follow_stop_command` gives `Input::StopCommandEnded` to that of the program. The record of the
//! command has the run and the rung that it was begun for, so the next host begins it if the program waits at another
//! one (`Engine::resume_stop_commands`).
//!
//! # A stop during a backoff
//!
//! In `Backoff` no process exists, and the lifecycle has a deadline. A stop that is one of many may wait for its turn
//! as a pending request. `Engine::apply` gives `Input::Stop` to the lifecycle. The row `(S::Fatal | S::Backoff, I::Stop
//! | I::Kill)` of the table calls `Turn::cancel_start`: the counters are cleared, and the state becomes `Stopped`.
//! `Engine::follow_up` then clears the deadline. If the deadline and the stop are due in the same turn,
//! `Engine::serve_deadline` applies the pending stop first.
//!
//! # A new stop scope
//!
//! Add a variant to `Scope` in `lifecycle/stop.rs`. The enum is ordered from the narrowest to the widest. The compiler
//! then names the other places: `leader_ended` in `lifecycle/table.rs` (when the stop is over), `send` and `deliver` in
//! `linux/watched.rs` (how a signal reaches the scope), `Linux::is_empty` in `linux/core.rs` (how to find out that
//! nothing of the scope is alive), and the same two questions in `proof/world.rs`. It does not name these:
//! `GroupSpec::check` and `GroupSpec::compile` in `engine/spec.rs`, which reject a scope without a cgroup directory or
//! a process group; the comparisons of scopes in `Engine::collect` and `Lifecycle::judges_others`; the list
//! `SCOPES` in `proof/recipe.rs`; and `ladder` in `examples/taskmaster/spec.rs`. `tests/lifecycle.rs` and
//! `tests/trees.rs` hold the tests.
//!
//! # How a host learns that a spawn failed
//!
//! The child records the step that failed and its errno in memory that it shares with the parent. `command` turns the
//! record into a [`SpawnError`](crate::SpawnError). `Engine::spawn_failed` keeps the error for
//! [`Status::last_error`](crate::supervisor::Status) and makes `Input::SpawnFailed` of it. `Turn::spawn_failed`
//! decides: an error that a retry cannot cure leads to `Fatal`, another one leads to `Backoff`. `Engine::emit` puts the
//! error into [`TransitionEvent::error`](crate::supervisor::TransitionEvent). A failed spawn is never an error of
//! [`Supervisor::start`](crate::Supervisor::start). The run is remembered as
//! [`End::NotSpawned`](crate::supervisor::End::NotSpawned).
//!
//! Without a supervisor: [`Spawner::spawn`](crate::Spawner::spawn) returns the error. With
//! [`Spawner::begin`](crate::Spawner::begin) and [`Launcher::begin`](crate::Launcher::begin), `begin` returns failures
//! in the host, and `finish` those in the child.
//!
//! # The limits of a run, and a death for lack of memory
//!
//! `cgroup/limits.rs` holds the limits as the host describes them. `Limits::files` turns them into files and values,
//! and `RunCgroups::make` in `linux/run_cgroup.rs` writes these before the spawn. A reload compares the files of the
//! present run with the new ones (`changes` in `cgroup/changes.rs`), and `Engine::update_limits` in `engine/limits.rs`
//! writes the difference.
//!
//! When SIGKILL has ended a process, `Engine::collect` asks the seam for the kernel's kills in the run
//! (`Kernel::out_of_memory`). `OomKill::of` in `cgroup/oom.rs` decides from the counts of the cgroup whether the kernel
//! has certainly killed this process. `OomLimit::judge` decides which limit was reached, from the counts of
//! `memory.events`, now and at the beginning of the run. `End::new` in `engine/run.rs` joins both with the end that the
//! lifecycle has found.
//! The lifecycle itself decides about a restart, and does not know of memory.
//!
//! # Spawns in flight
//!
//! A spawn with `CLONE_VFORK` suspends the calling thread until the child calls `execve`. A spawn *in flight* does not:
//! the parent continues, and the child runs its steps meanwhile. `sys/spawn/flight.rs` owns all memory that such a
//! child uses: a stack, the list of steps, and a record of its progress. The kernel clears a word of that memory when
//! the child calls `execve` or ends (`CLONE_CHILD_CLEARTID`), and only then is the memory reused. Nothing wakes the
//! host at that moment, so `Linux` looks again after a short wait that grows (`look_at`, `look_again`, and
//! `linux/flight.rs`).
//! `Linux::collect` returns `Executed` or `SpawnFailed`. The lifecycle is in `Starting { executed: None }` meanwhile.
//!
//! A child that is killed before its `execve` is told from one that ran by `Launch::landed`. For the supervisor it
//! is a failed start: `Linux::collect` returns its end without `Executed` before, and the row `(S::Starting { executed:
//! None }, I::Exited)` calls `Turn::start_failed`. It does not count against the crash budget.
//!
//! # A hand-over and a recovery
//!
//! Both continue the same data. `Engine::image` in `engine/image.rs` is the state of an engine without its commands,
//! and `Engine::restore` continues it with the descriptions that the host gives again. `codec.rs` encodes it.
//!
//! For a hand-over, `linux/image.rs` adds the numbers of all descriptors. `supervisor/hand_over.rs` stores both in a
//! sealed memory file, clears close-on-exec, and calls `execve`. `supervisor/take_over.rs` checks everything before it
//! takes the first descriptor.
//!
//! For a recovery, `engine/record.rs` writes a record of an instance before it carries a decision out, and
//! `linux/state_file.rs` keeps the records in a mapped file. Two moments are left to the kernel, because a host could
//! be killed in them: it writes the PID of a new process to the record before the process runs (`BirthCell` in
//! `sys/mapping.rs`), and the exit status when it reaps one (`ExitCell`). `engine/recovery.rs` decides what became of each
//! process, and in which order the next host goes on. It is pure, so the simulation runs it too: there the host is
//! killed between any two calls. `linux/found.rs` finds the processes in /proc, and `supervisor/recover.rs` puts the
//! parts together.
//!
//! # The simulation
//!
//! `proof` runs the real engine and the real lifecycles over a simulated kernel. An episode draws some hundred steps from
//! a seed: requests of the host, ends of processes, refused signals, late readiness, jumps of the clock. After each
//! step the oracles compare the engine with the kernel's log (`proof/oracle.rs`, `proof/kernel_log.rs`, `proof/stream.rs`)
//! and with a model of the requests (`proof/model.rs`). `proof/planted_faults.rs` injects a fault into the engine or the
//! simulated kernel between two steps, and checks that an oracle notices it. `proof/regressions.rs` holds the episodes
//! that once failed, and `proof/interrupted.rs` kills the host at each call of an act in turn.
//!
//! A failed run prints the seed of its episode. This command replays the episode:
//!
//! ```text
//! PIDHERD_SIM_SEED=0x1234 cargo test --lib proof::every
//! ```
//!
//! `bash ci/sim 10000000` runs ten million steps from a new seed.
//!
//! One of the acts replaces the engine by one that goes on with its image (`proof/reexec.rs`). Another one kills the host
//! between any two calls, and another engine goes on with its state file (`proof/crash.rs`). `proof/images.rs` restores
//! damaged images. `bash ci/fuzz` does that ten million times.
//!
//! `simulation` is another one, for the tests of hosts: scripts instead of chance, errors instead of oracles. It shares
//! the engine with `proof`, and nothing else. `supervisor/supervise.rs` has the calls that it shares with the real
//! supervisor.
//!
//! # Golden files
//!
//! The state-event matrix and the drawing of the states in `lifecycle/` are generated from the table and committed. A
//! test fails when they differ from the table. After an intended change, this command writes them:
//!
//! ```text
//! PIDHERD_UPDATE_GOLDEN=1 cargo test --lib lifecycle
//! ```
//!
//! `supervisor/tests/golden/` holds two stored states as bytes, and a page with all stored types. The same variable writes
//! them with `cargo test --lib golden`. A change of them needs a new version of the format.

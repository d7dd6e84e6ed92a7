//! The methods.

use pidherd::lifecycle::StateName;
use pidherd::{InstanceId, Signal};

use super::fault::Fault;
use super::later::{Answer, Goal, Item, Later};
use super::logs;
use super::remote::Remote;
use super::value::Value;
use std::path::Path;

use crate::config::{self, Channel, Group, Log, Program};
use crate::herd::{Info, Named, Refused, Verb};

/// The version of the interface, which supervisorctl checks.
const API_VERSION: &str = "3.0";
/// The version of supervisord that the methods agree with.
const SUPERVISOR_VERSION: &str = "4.3.0";

/// A method, for `system.listMethods` and its like.
pub struct Method {
    /// Its full name.
    pub name: &'static str,
    /// The type of its result, and those of its parameters.
    pub types: &'static str,
    /// What it does.
    pub help: &'static str,
}

macro_rules! methods {
    ($($name:literal $types:literal $help:literal)*) => {
        /// All methods, in alphabetical order.
        pub const ALL: &[Method] = &[$(Method { name: $name, types: $types, help: $help }),*];
    };
}

methods! {
    "supervisor.addProcessGroup" "boolean string" "Adds a group that the last reloadConfig has read."
    "supervisor.clearAllProcessLogs" "array" "Empties the logs of all processes."
    "supervisor.clearLog" "boolean" "Empties the taskmaster's own log."
    "supervisor.clearProcessLog" "boolean string" "The same as clearProcessLogs."
    "supervisor.clearProcessLogs" "boolean string" "Empties the logs of a process."
    "supervisor.getAPIVersion" "string" "The version of this interface."
    "supervisor.getAllConfigInfo" "array" "The programs of the configuration that was read last."
    "supervisor.getAllProcessInfo" "array" "The state of all processes."
    "supervisor.getIdentification" "string" "The identifier of the configuration."
    "supervisor.getPID" "int" "The PID of the taskmaster."
    "supervisor.getProcessInfo" "struct string" "The state of a process."
    "supervisor.getState" "struct" "The state of the taskmaster."
    "supervisor.getSupervisorVersion" "string" "The version of supervisord that the taskmaster stands in for."
    "supervisor.getVersion" "string" "The same as getAPIVersion."
    "supervisor.readLog" "string int int" "A part of the taskmaster's own log: offset, length."
    "supervisor.readMainLog" "string int int" "The same as readLog."
    "supervisor.readProcessLog" "string string int int" "The same as readProcessStdoutLog."
    "supervisor.readProcessStderrLog" "string string int int" "A part of a log: name, offset, length."
    "supervisor.readProcessStdoutLog" "string string int int" "A part of a log: name, offset, length."
    "supervisor.reloadConfig" "array" "Reads the configuration, and tells which groups differ: added, changed, removed."
    "supervisor.removeProcessGroup" "boolean string" "Removes a group whose processes are down."
    "supervisor.restart" "boolean" "Stops all processes, and begins anew."
    "supervisor.sendProcessStdin" "boolean string string" "Writes to the standard input of a process."
    "supervisor.sendRemoteCommEvent" "boolean string string" "Sends an event to the listeners: type, data."
    "supervisor.shutdown" "boolean" "Stops all processes, and ends."
    "supervisor.signalAllProcesses" "array string" "Sends a signal to all processes."
    "supervisor.signalProcess" "boolean string string" "Sends a signal to a process: name, signal."
    "supervisor.signalProcessGroup" "array string string" "Sends a signal to a group: name, signal."
    "supervisor.startAllProcesses" "array boolean" "Starts all processes, and waits for them if asked to."
    "supervisor.startProcess" "boolean string boolean" "Starts a process, and waits for it if asked to."
    "supervisor.startProcessGroup" "array string boolean" "Starts a group, and waits for it if asked to."
    "supervisor.stopAllProcesses" "array boolean" "Stops all processes, and waits for them if asked to."
    "supervisor.stopProcess" "boolean string boolean" "Stops a process, and waits for it if asked to."
    "supervisor.stopProcessGroup" "array string boolean" "Stops a group, and waits for it if asked to."
    "supervisor.tailProcessLog" "array string int int" "The same as tailProcessStdoutLog."
    "supervisor.tailProcessStderrLog" "array string int int" "What follows an offset of a log: name, offset, length."
    "supervisor.tailProcessStdoutLog" "array string int int" "What follows an offset of a log: name, offset, length."
    "system.listMethods" "array" "The names of all methods."
    "system.methodHelp" "string string" "What a method does."
    "system.methodSignature" "array string" "The types of a method: of its result, and of its parameters."
    "system.multicall" "array array" "Makes several calls."
}

/// Carries out `supervisor.name`.
///
/// # Errors
/// The fault for the client.
pub fn supervisor(remote: &mut Remote<'_>, name: &str, params: &[Value]) -> Result<Answer, Fault> {
    use Value::{Bool, Int, Text};
    let answer = match (name, params) {
        ("getAPIVersion" | "getVersion", []) => Value::from(API_VERSION),
        ("getSupervisorVersion", []) => Value::from(SUPERVISOR_VERSION),
        ("getIdentification", []) => Value::from(remote.herd.identifier()),
        ("getState", []) => state(remote),
        ("getPID", []) => Int(std::process::id().into()),
        ("shutdown", []) => {
            remote.wishes.shutdown = true;
            Bool(true)
        }
        ("restart", []) => {
            remote.wishes.restart = true;
            Bool(true)
        }
        ("readLog" | "readMainLog", [Int(offset), Int(length)]) => {
            logs::read(remote.own_log.as_ref().map(|log| log.path()), *offset, *length)?
        }
        ("clearLog", []) => {
            let log = remote.own_log.as_mut().ok_or_else(|| Fault::no_file(""))?;
            log.clear()
                .map_err(|error| Fault::failed(crate::files::reason(error)))?;
            Bool(true)
        }
        ("reloadConfig", []) => reload(remote)?,
        ("addProcessGroup", [Text(name)]) => {
            remote.herd.add_group(name).map_err(|refused| refusal(refused, name))?;
            Bool(true)
        }
        ("removeProcessGroup", [Text(name)]) => {
            remote
                .herd
                .remove_group(name)
                .map_err(|refused| refusal(refused, name))?;
            Bool(true)
        }
        ("getAllConfigInfo", []) => Value::Array(config_infos(remote)),
        ("getProcessInfo", [Text(name)]) => info(&process(remote, name)?.1),
        ("getAllProcessInfo", []) => {
            let mut infos: Vec<Info> = infos(remote, remote.herd.all_ids()).map(|(_, info)| info).collect();
            infos.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
            Value::Array(infos.iter().map(info).collect())
        }
        ("sendRemoteCommEvent", [Text(kind), Text(data)]) => {
            remote.herd.emit_remote(kind, data);
            Bool(true)
        }
        _ => return processes(remote, name, params),
    };
    Ok(answer.into())
}

/// The methods that name processes.
fn processes(remote: &mut Remote<'_>, name: &str, params: &[Value]) -> Result<Answer, Fault> {
    use Value::{Bool, Int, Text};
    let answer = match (name, params) {
        ("startProcess", [Text(name), wait @ ..]) => return start(remote, name, waits(wait)?),
        ("startProcessGroup", [Text(name), wait @ ..]) => {
            return Ok(start_all(remote, group(remote, name)?, waits(wait)?));
        }
        ("startAllProcesses", wait) => return Ok(start_all(remote, remote.herd.all_ids(), waits(wait)?)),
        ("stopProcess", [Text(name), wait @ ..]) => return stop(remote, name, waits(wait)?),
        ("stopProcessGroup", [Text(name), wait @ ..]) => {
            return Ok(stop_all(remote, group(remote, name)?, waits(wait)?));
        }
        ("stopAllProcesses", wait) => return Ok(stop_all(remote, remote.herd.all_ids(), waits(wait)?)),
        ("signalProcess", [Text(name), sent]) => match named(remote, name)? {
            Named::Process(id) => {
                let info = info_of(remote, id, name)?;
                signal_one(remote, id, &info, sent)?;
                Bool(true)
            }
            Named::Group(ids) => return signal_all(remote, ids, sent),
        },
        ("signalProcessGroup", [Text(name), sent]) => return signal_all(remote, group(remote, name)?, sent),
        ("signalAllProcesses", [sent]) => return signal_all(remote, remote.herd.all_ids(), sent),
        ("readProcessStdoutLog" | "readProcessLog", [Text(name), Int(offset), Int(length)]) => {
            logs::read(process(remote, name)?.1.logs[0].as_deref(), *offset, *length)?
        }
        ("readProcessStderrLog", [Text(name), Int(offset), Int(length)]) => {
            logs::read(process(remote, name)?.1.logs[1].as_deref(), *offset, *length)?
        }
        ("tailProcessStdoutLog" | "tailProcessLog", [Text(name), Int(offset), Int(length)]) => {
            logs::tail(process(remote, name)?.1.logs[0].as_deref(), *offset, *length)
        }
        ("tailProcessStderrLog", [Text(name), Int(offset), Int(length)]) => {
            logs::tail(process(remote, name)?.1.logs[1].as_deref(), *offset, *length)
        }
        ("clearProcessLogs" | "clearProcessLog", [Text(name)]) => {
            let (_, info) = process(remote, name)?;
            clear(remote, &info)?;
            Bool(true)
        }
        ("clearAllProcessLogs", []) => {
            let all: Vec<_> = infos(remote, remote.herd.all_ids()).collect();
            let item = |(id, info): (InstanceId, Info)| {
                let result = clear(remote, &info);
                item(id, &info, Goal::Started, Some(result))
            };
            let items = all.into_iter().map(item).collect();
            return Later::All(items).into_answer(remote);
        }
        ("sendProcessStdin", [Text(name), Text(text)]) => {
            let (id, info) = process(remote, name)?;
            send(remote, id, &info, text)?;
            Bool(true)
        }
        _ if ALL
            .iter()
            .any(|method| method.name.strip_prefix("supervisor.") == Some(name)) =>
        {
            return Err(Fault::incorrect_parameters(""));
        }
        _ => return Err(Fault::unknown_method("")),
    };
    Ok(answer.into())
}

fn waits(rest: &[Value]) -> Result<bool, Fault> {
    match rest {
        [] => Ok(true),
        [Value::Bool(wait)] => Ok(*wait),
        [Value::Int(wait)] => Ok(*wait != 0),
        _ => Err(Fault::incorrect_parameters("")),
    }
}

fn named(remote: &Remote<'_>, name: &str) -> Result<Named, Fault> {
    remote.herd.find(name).ok_or_else(|| Fault::bad_name(name))
}

fn group(remote: &Remote<'_>, name: &str) -> Result<Vec<InstanceId>, Fault> {
    remote.herd.group_ids(name).ok_or_else(|| Fault::bad_name(name))
}

fn info_of(remote: &Remote<'_>, id: InstanceId, name: &str) -> Result<Info, Fault> {
    remote.herd.info(id).ok_or_else(|| Fault::bad_name(name))
}

fn process(remote: &Remote<'_>, name: &str) -> Result<(InstanceId, Info), Fault> {
    match named(remote, name)? {
        Named::Process(id) => Ok((id, info_of(remote, id, name)?)),
        Named::Group(_) => Err(Fault::bad_name(name)),
    }
}

fn infos<'a>(remote: &'a Remote<'_>, ids: Vec<InstanceId>) -> impl Iterator<Item = (InstanceId, Info)> + 'a {
    ids.into_iter().filter_map(|id| Some((id, remote.herd.info(id)?)))
}

fn item(id: InstanceId, info: &Info, goal: Goal, result: Option<Result<(), Fault>>) -> Item {
    Item {
        id,
        name: (info.group.clone(), info.name.clone()),
        goal,
        result,
    }
}

fn shown(info: &Info) -> String {
    crate::names::shown(&info.group, &info.name)
}

/// STARTING, RUNNING and BACKOFF are the running states of supervisord.
fn is_up(info: &Info) -> bool {
    matches!(
        info.state,
        StateName::Starting | StateName::Running | StateName::Backoff
    )
}

fn start(remote: &mut Remote<'_>, name: &str, wait: bool) -> Result<Answer, Fault> {
    let id = match named(remote, name)? {
        Named::Process(id) => id,
        Named::Group(ids) => return Ok(start_all(remote, ids, wait)),
    };
    let info = info_of(remote, id, name)?;
    start_one(remote, id, &info)?;
    if !wait {
        return Ok(Value::Bool(true).into());
    }
    Later::One(item(id, &info, Goal::Started, None)).into_answer(remote)
}

fn start_one(remote: &mut Remote<'_>, id: InstanceId, info: &Info) -> Result<(), Fault> {
    if is_up(info) {
        return Err(Fault::already_started(shown(info)));
    }
    match remote.herd.cannot_execute(id) {
        Some(libc::ENOENT) => return Err(Fault::no_file(shown(info))),
        Some(_) => return Err(Fault::not_executable(shown(info))),
        None => {}
    }
    remote.herd.ask(id, Verb::Start).map_err(Fault::failed)
}

fn start_all(remote: &mut Remote<'_>, ids: Vec<InstanceId>, wait: bool) -> Answer {
    let down: Vec<_> = infos(remote, ids).filter(|(_, info)| !is_up(info)).collect();
    let one = |remote: &mut Remote<'_>, id, info: &Info| start_one(remote, id, info);
    all(remote, down, Goal::Started, wait, one)
}

fn stop(remote: &mut Remote<'_>, name: &str, wait: bool) -> Result<Answer, Fault> {
    let id = match named(remote, name)? {
        Named::Process(id) => id,
        Named::Group(ids) => return Ok(stop_all(remote, ids, wait)),
    };
    let info = info_of(remote, id, name)?;
    stop_one(remote, id, &info)?;
    if !wait {
        return Ok(Value::Bool(true).into());
    }
    Later::One(item(id, &info, Goal::Stopped, None)).into_answer(remote)
}

fn stop_one(remote: &mut Remote<'_>, id: InstanceId, info: &Info) -> Result<(), Fault> {
    if !is_up(info) {
        return Err(Fault::not_running(shown(info)));
    }
    remote.herd.ask(id, Verb::Stop).map_err(Fault::failed)
}

fn stop_all(remote: &mut Remote<'_>, ids: Vec<InstanceId>, wait: bool) -> Answer {
    let up: Vec<_> = infos(remote, ids).filter(|(_, info)| is_up(info)).collect();
    let one = |remote: &mut Remote<'_>, id, info: &Info| stop_one(remote, id, info);
    all(remote, up, Goal::Stopped, wait, one)
}

/// Asks all these processes, and waits for them if that is wanted.
fn all(
    remote: &mut Remote<'_>,
    processes: Vec<(InstanceId, Info)>,
    goal: Goal,
    wait: bool,
    ask: impl Fn(&mut Remote<'_>, InstanceId, &Info) -> Result<(), Fault>,
) -> Answer {
    let items = processes.iter().map(|(id, info)| {
        let result = match ask(remote, *id, info) {
            Ok(()) if wait => None,
            result => Some(result),
        };
        item(*id, info, goal, result)
    });
    let later = Later::All(items.collect());
    later
        .into_answer(remote)
        .unwrap_or_else(|_| Value::Array(Vec::new()).into())
}

fn signal_one(remote: &mut Remote<'_>, id: InstanceId, info: &Info, sent: &Value) -> Result<(), Fault> {
    let text = match sent {
        Value::Text(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => return Err(Fault::incorrect_parameters("")),
    };
    let signal: Signal = text.parse().map_err(|_| Fault::bad_signal(&text))?;
    if info.pid == 0 {
        return Err(Fault::not_running(shown(info)));
    }
    remote.herd.ask_signal(id, signal).map_err(Fault::failed)
}

fn signal_all(remote: &mut Remote<'_>, ids: Vec<InstanceId>, sent: &Value) -> Result<Answer, Fault> {
    let alive: Vec<_> = infos(remote, ids).filter(|(_, info)| info.pid != 0).collect();
    let one = |(id, info): &(InstanceId, Info)| {
        let result = signal_one(remote, *id, info, sent);
        item(*id, info, Goal::Started, Some(result))
    };
    let items = alive.iter().map(one).collect();
    Later::All(items).into_answer(remote)
}

fn clear(remote: &mut Remote<'_>, info: &Info) -> Result<(), Fault> {
    for log in info.logs.iter().flatten() {
        remote.herd.clear_log(log).map_err(|_| Fault::failed(shown(info)))?;
    }
    Ok(())
}

fn send(remote: &mut Remote<'_>, id: InstanceId, info: &Info, text: &str) -> Result<(), Fault> {
    if info.pid == 0 || info.state == StateName::Stopping {
        return Err(Fault::not_running(shown(info)));
    }
    remote.herd.send_input(id, text.as_bytes()).map_err(|error| {
        let reason = crate::files::reason(&error);
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Fault::no_file(shown(info)),
            _ => Fault::failed(format!("{}: {reason}", shown(info))),
        }
    })
}

fn state(remote: &Remote<'_>) -> Value {
    let (code, name) = if remote.herd.is_closing() {
        (-1, "SHUTDOWN")
    } else {
        (1, "RUNNING")
    };
    Value::of([("statecode", Value::Int(code)), ("statename", Value::from(name))])
}

fn reload(remote: &mut Remote<'_>) -> Result<Value, Fault> {
    let config = read_again(remote.config)?;
    let differences = remote.herd.stage(config).map_err(Fault::cant_reread)?;
    let names = |names: Vec<String>| Value::Array(names.into_iter().map(Value::from).collect());
    let lists = [differences.added, differences.changed, differences.removed];
    Ok(Value::Array(vec![Value::Array(lists.into_iter().map(names).collect())]))
}

fn refusal(refused: Refused, name: &str) -> Fault {
    match refused {
        Refused::Unknown => Fault::bad_name(name),
        Refused::Present => Fault::already_added(name),
        Refused::Running => Fault::still_running(name),
        Refused::Required(by) => Fault::failed(format!("{name} cannot be removed: {by} requires it")),
        Refused::Requires(other) => Fault::failed(format!("{name} cannot be added: it requires {other}")),
    }
}

/// supervisord's number of a state.
fn number(state: StateName) -> i64 {
    match state {
        StateName::Stopped => 0,
        StateName::Preparing | StateName::Starting => 10,
        StateName::Running => 20,
        StateName::Backoff => 30,
        StateName::Stopping | StateName::CleaningUp => 40,
        StateName::Exited => 100,
        StateName::Fatal => 200,
        // UNKNOWN.
        _ => 1_000,
    }
}

fn info(info: &Info) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs().try_into().unwrap_or(0));
    let log = |index: usize| {
        let path = info.logs.get(index).and_then(Option::as_ref);
        Value::from(path.map(|path| path.display().to_string()).unwrap_or_default())
    };
    Value::of([
        ("name", Value::from(info.name.as_str())),
        ("group", Value::from(info.group.as_str())),
        ("start", Value::Int(info.start)),
        ("stop", Value::Int(info.stop)),
        ("now", Value::Int(now)),
        ("state", Value::Int(number(info.state))),
        ("statename", Value::from(info.state.to_string())),
        ("spawnerr", Value::from(info.spawnerr.as_str())),
        ("exitstatus", Value::Int(info.exitstatus)),
        ("logfile", log(0)),
        ("stdout_logfile", log(0)),
        ("stderr_logfile", log(1)),
        ("pid", Value::Int(info.pid.into())),
        ("description", Value::from(info.description.as_str())),
    ])
}

fn config_infos(remote: &Remote<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for group in &remote.herd.staged().groups {
        let in_use = remote.herd.group_ids(&group.name).is_some();
        for program in &group.programs {
            let instances = (0..program.numprocs).filter_map(|index| config_info(group, program, index, in_use));
            all.extend(instances);
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all.into_iter().map(|(_, value)| value).collect()
}

fn config_info(group: &Group, program: &Program, index: u32, in_use: bool) -> Option<(String, Value)> {
    let instance = program.instance(index).ok()?;
    let seconds = |time: std::time::Duration| Value::Int(time.as_secs().try_into().unwrap_or(i64::MAX));
    let none = || Value::from("none");
    let log = |log: &Log, channel| match log {
        Log::Automatic(_) => Value::from("auto"),
        _ => program
            .log(index, channel)
            .map_or_else(none, |path| Value::from(path.display().to_string())),
    };
    let rotation = |index: usize| program.rotations.get(index).copied().unwrap_or_default();
    let size = |bytes: u64| Value::Int(bytes.try_into().unwrap_or(i64::MAX));
    let [out, err] = program.heard;
    let codes = program.exitcodes.iter().map(|&code| Value::Int(code.into()));
    let value = Value::of([
        ("autostart", Value::Bool(program.autostart)),
        ("command", Value::from(instance.argv.join(" "))),
        (
            "directory",
            instance
                .directory
                .as_ref()
                .map_or_else(none, |path| Value::from(path.display().to_string())),
        ),
        ("exitcodes", Value::Array(codes.collect())),
        ("group", Value::from(group.name.as_str())),
        ("group_prio", Value::Int(group.priority.into())),
        ("inuse", Value::Bool(in_use)),
        ("killasgroup", Value::Bool(program.killasgroup)),
        ("name", Value::from(instance.name.as_str())),
        ("process_prio", Value::Int(program.priority.into())),
        ("redirect_stderr", Value::Bool(program.redirect_stderr)),
        ("serverurl", program.serverurl.as_deref().map_or_else(none, Value::from)),
        ("startretries", Value::Int(program.startretries.into())),
        ("startsecs", seconds(program.startsecs)),
        ("stderr_logfile", log(&instance.stderr, Channel::Err)),
        ("stderr_logfile_backups", Value::Int(rotation(1).backups.into())),
        ("stderr_logfile_maxbytes", size(rotation(1).maxbytes)),
        ("stdout_logfile", log(&instance.stdout, Channel::Out)),
        ("stdout_logfile_backups", Value::Int(rotation(0).backups.into())),
        ("stdout_logfile_maxbytes", size(rotation(0).maxbytes)),
        ("stopsignal", Value::Int(program.stopsignal.as_raw().into())),
        ("stopwaitsecs", seconds(program.stopwaitsecs)),
        (
            "uid",
            program
                .user
                .as_ref()
                .map_or_else(none, |user| Value::Int(user.uid.into())),
        ),
        ("stdout_syslog", Value::Bool(false)),
        ("stderr_syslog", Value::Bool(false)),
        ("stdout_capture_maxbytes", size(out.capture)),
        ("stderr_capture_maxbytes", size(err.capture)),
        ("stdout_events_enabled", Value::Bool(out.events)),
        ("stderr_events_enabled", Value::Bool(err.events)),
    ]);
    Some((instance.name, value))
}

/// Reads the configuration file again.
fn read_again(path: Option<&Path>) -> Result<config::Config, Fault> {
    let path = path.ok_or_else(|| Fault::cant_reread("there is no configuration file"))?;
    config::load_again(path).map_err(|problems| Fault::cant_reread(problems.join("; ")))
}

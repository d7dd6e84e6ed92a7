//! Event listeners: shell scripts that speak supervisord's protocol, and some that do not.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::process::Signal;

use crate::common::{patience, wait_for_content};
use crate::driver::{Dir, PATIENCE, Taskmaster, fifo, run_to_end};

/// A listener that appends each event to the file `events`, as `HEADER|PAYLOAD|`. It rejects an event while there is a
/// file `reject`, and waits for a line in the FIFO `gate` while there is one.
const SCRIPT: &str = "#!/bin/sh\n\
    while :; do\n\
    echo READY\n\
    read -r header || exit 0\n\
    payload=$(dd bs=1 count=${header##*len:} 2>/dev/null)\n\
    [ ! -p gate ] || read -r go < gate\n\
    printf '%s|%s|\\n' \"$header\" \"$payload\" >> events.log\n\
    if [ -e reject ]; then rm reject; printf 'RESULT 4\\nFAIL'; else printf 'RESULT 2\\nOK'; fi\n\
    done\n";

fn listener(name: &str, events: &str, more: &str) -> String {
    format!("[eventlistener:{name}]\ncommand=sh listener.sh\nevents={events}\nstartsecs=0\n{more}\n")
}

fn program(name: &str, script: &str, more: &str) -> String {
    format!("[program:{name}]\ncommand=sh -c \"{script}\"\nstartsecs=0\n{more}\n")
}

fn start(config: &str) -> Taskmaster {
    start_with_fifos(config, &[])
}

fn start_with_fifos(config: &str, names: &[&str]) -> Taskmaster {
    let dir = Dir::new();
    names.iter().for_each(|name| drop(fifo(&dir, name)));
    dir.file("listener.sh", SCRIPT);
    let config = dir.file("herd.conf", config);
    Taskmaster::spawn(dir, &[config.as_os_str()])
}

/// The events in the file when they contain `word`.
fn events(herd: &Taskmaster, word: &str) -> String {
    wait_for_content(&herd.dir.path("events.log"), PATIENCE, |text| text.contains(word))
}

/// A part of the header of an event.
fn field<'a>(event: &'a str, name: &str) -> &'a str {
    let rest = event
        .split(&format!("{name}:"))
        .nth(1)
        .unwrap_or_else(|| panic!("{name} in {event}"));
    rest.split([' ', '|', '\n']).next().unwrap()
}

#[test]
fn a_listener_gets_a_mail_about_each_crash() {
    // Superlance's crashmail in shell: a mail for each unexpected exit.
    let crashmail = "#!/bin/sh\nwhile :; do\necho READY\nread -r header || exit 0\n\
        payload=$(dd bs=1 count=${header##*len:} 2>/dev/null)\n\
        case \"$payload\" in *expected:0*) echo \"Process ${payload#processname:}\" >> mail;; esac\n\
        printf 'RESULT 2\\nOK'\ndone\n";
    let dir = Dir::new();
    dir.file("crashmail", crashmail);
    let gates = ["fine", "bad"].map(|name| (name, fifo(&dir, name)));
    let config = [
        "[eventlistener:crashmail]\ncommand=sh crashmail\nevents=PROCESS_STATE_EXITED\nstartsecs=0\n".to_owned(),
        program("fine", "read go < fine; exit 0", "autorestart=false"),
        program("bad", "read go < bad; exit 3", "autorestart=false"),
    ];
    let config = dir.file("herd.conf", &config.concat());
    let mut herd = Taskmaster::spawn(dir, &[config.as_os_str()]);
    for (name, go) in gates {
        herd.reached(&format!("{name}:{name}"), "RUNNING");
        fs::write(go, "now\n").unwrap();
    }
    let pid = herd.pid_of("bad:bad");
    let expected = format!("Process bad groupname:bad from_state:RUNNING expected:0 pid:{pid}\n");
    let mail = wait_for_content(&herd.dir.path("mail"), PATIENCE, |text| text.ends_with('\n'));
    assert_eq!(mail, expected);
    herd.shut_down();
}

#[test]
fn every_change_of_a_state_is_an_event() {
    let more = "buffer_size=100";
    let kinds = "PROCESS_STATE,PROCESS_GROUP,SUPERVISOR_STATE_CHANGE";
    // Its stop takes until the listener has the event of the shutdown.
    let slow = "trap 'until grep -q CHANGE_STOPPING events.log; do sleep 0.05; done; exit' TERM; \
        while :; do sleep 0.05; done";
    let config = listener("watch", kinds, more) + &program("a", "exec sleep 1000", "") + &program("slow", slow, "");
    let mut herd = start(&config);
    herd.reached("a:a", "RUNNING");
    let pid = herd.pid_of("a:a");
    herd.ask("stop a");
    events(&herd, "PROCESS_STATE_STOPPED");
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0), "{}", herd.transcript());
    let text = fs::read_to_string(herd.dir.path("events.log")).unwrap();
    let header = text.lines().next().unwrap();
    let expected = "ver:3.0 server:supervisor serial:0 pool:watch poolserial:0 eventname:PROCESS_GROUP_ADDED len:16|";
    assert!(header.starts_with(expected), "{text}");
    assert!(
        text.contains("groupname:watch|") && text.contains("groupname:a|"),
        "{text}"
    );
    let of_a: Vec<&str> = text.lines().filter(|line| line.contains("processname:a ")).collect();
    let payloads: Vec<&str> = of_a.iter().map(|line| line.split('|').nth(1).unwrap()).collect();
    let of = |rest: &str| format!("processname:a groupname:a {rest}");
    let expected = [
        of("from_state:STOPPED tries:0"),
        of(&format!("from_state:STARTING pid:{pid}")),
        of(&format!("from_state:RUNNING pid:{pid}")),
        of(&format!("from_state:STOPPING pid:{pid}")),
    ];
    assert_eq!(payloads, expected, "{text}");
    for (line, payload) in of_a.iter().zip(payloads) {
        assert_eq!(field(line, "len"), payload.len().to_string());
    }
    let serials: Vec<u64> = text
        .lines()
        .filter(|line| line.starts_with("ver:"))
        .map(|line| field(line, "serial").parse().unwrap())
        .collect();
    assert!(serials.is_sorted(), "{text}");
    assert!(text.contains("SUPERVISOR_STATE_CHANGE_RUNNING len:0||"), "{text}");
    assert!(text.contains("SUPERVISOR_STATE_CHANGE_STOPPING len:0||"), "{text}");
}

#[test]
fn what_is_written_between_the_tokens_is_an_event_and_no_log() {
    let begin = "<!--XSUPERVISOR:BEGIN-->";
    let end = "<!--XSUPERVISOR:END-->";
    let script = format!("printf 'one{begin}se'; sleep 0.05; printf 'cret{end}two'; echo problem >&2; exec sleep 1000");
    let keys = "stdout_capture_maxbytes=1MB\nstdout_events_enabled=false\nstderr_events_enabled=true\n\
        stdout_logfile=a.log\nstderr_logfile=NONE";
    let config = listener("watch", "PROCESS_COMMUNICATION,PROCESS_LOG", "") + &program("a", &script, keys);
    let mut herd = start(&config);
    herd.reached("a:a", "RUNNING");
    let pid = herd.pid_of("a:a");
    events(&herd, "secret");
    let text = events(&herd, "problem");
    let communication = format!("processname:a groupname:a pid:{pid}\nsecret|");
    let log = format!("processname:a groupname:a pid:{pid} channel:stderr\nproblem");
    assert!(text.contains("eventname:PROCESS_COMMUNICATION_STDOUT"), "{text}");
    assert!(text.contains("eventname:PROCESS_LOG_STDERR"), "{text}");
    assert!(text.contains(&communication) && text.contains(&log), "{text}");
    assert!(!text.contains("PROCESS_LOG_STDOUT"), "{text}");
    let log = wait_for_content(&herd.dir.path("a.log"), PATIENCE, |text| text.contains("two"));
    assert_eq!(log, "onetwo");
    herd.shut_down();
}

#[test]
fn an_event_may_be_larger_than_a_pipe() {
    let script = "printf '<!--XSUPERVISOR:BEGIN-->'; head -c 300000 /dev/zero | tr '\\\\0' x; \
        printf '<!--XSUPERVISOR:END-->'; exec sleep 1000";
    let wc = "#!/bin/sh\necho READY\nread -r header\nhead -c ${header##*len:} | wc -c > size\n\
        printf 'RESULT 2\\nOK'\nexec sleep 1000\n";
    let config = "[eventlistener:size]\ncommand=sh size.sh\nevents=PROCESS_COMMUNICATION\nstartsecs=0\n".to_owned()
        + &program("a", script, "stdout_capture_maxbytes=1MB");
    let dir = Dir::new();
    dir.file("size.sh", wc);
    let config = dir.file("herd.conf", &config);
    let mut herd = Taskmaster::spawn(dir, &[config.as_os_str()]);
    herd.reached("a:a", "RUNNING");
    let header = format!("processname:a groupname:a pid:{}\n", herd.pid_of("a:a"));
    let size = wait_for_content(&herd.dir.path("size"), PATIENCE, |text| text.ends_with('\n'));
    assert_eq!(size.trim().parse(), Ok(300_000 + header.len()));
    herd.shut_down();
}

#[test]
fn a_rejected_event_comes_again() {
    let a = program("a", "exec sleep 1000", "autostart=false");
    let mut herd = start(&(listener("watch", "PROCESS_STATE_RUNNING", "") + &a));
    events(&herd, "processname:watch ");
    fs::write(herd.dir.path("reject"), "").unwrap();
    herd.ask("start a");
    let file = herd.dir.path("events.log");
    // A listener that has not yet answered the first event rejects that one.
    wait_for_content(&file, PATIENCE, |text| {
        let times = |name: &str| text.matches(name).count();
        times("processname:a ") >= 1 && times("processname:a ") + times("processname:watch ") == 3
    });
    herd.complaint("event listener watch: event ");
    herd.shut_down();
}

#[test]
fn an_event_that_a_dead_listener_had_goes_to_the_next_one() {
    let config = listener("watch", "PROCESS_STATE_FATAL", "autorestart=true")
        + "[program:lost]\ncommand=/no/such/program\nstartretries=0\nautostart=false\n";
    let mut herd = start_with_fifos(&config, &["gate"]);
    herd.reached("watch:watch", "RUNNING");
    herd.ask("start lost");
    herd.reached("lost:lost", "FATAL");
    // The listener holds the event when it has taken its bytes, and writes its file only after the gate.
    let gate = herd.dir.path("gate");
    let opened = fs::File::options().write(true).open(&gate).unwrap();
    fs::remove_file(&gate).unwrap();
    let pid = rustix::process::Pid::from_raw(herd.pid_of("watch:watch").try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    drop(opened);
    let text = events(&herd, "processname:lost");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("poolserial:0 eventname:PROCESS_STATE_FATAL"), "{text}");
    herd.shut_down();
}

#[test]
fn hostile_listeners_cost_their_own_events_alone() {
    let hostile = |name: &str, script: &str| {
        format!("[eventlistener:{name}]\ncommand=sh -c \"{script}\"\nevents=EVENT\nstartsecs=0\nautorestart=false\n")
    };
    let loud = "while :; do echo line; done";
    let config = [
        hostile("silent", "exec sleep 1000"),
        hostile("greedy", "echo READY; exec sleep 1000"),
        hostile("garbage", "echo hello; exec sleep 1000"),
        hostile("closed", "exec 0<&- 1>&-; exec sleep 1000"),
        hostile("half", "echo READY; exec 0<&-; exec sleep 1000"),
        hostile("flood", "echo READY; exec yes READY"),
        hostile(
            "huge",
            "echo READY; read header; printf 'RESULT 99999999999999\\\\n'; exec yes x",
        ),
        listener("good", "PROCESS_STATE_RUNNING", ""),
        program("loud", loud, "stdout_events_enabled=true\nstdout_logfile=NONE"),
        program("a", "exec sleep 1000", "autorestart=true\ncrash_budget=none"),
    ];
    let mut herd = start(&config.concat());
    herd.reached("a:a", "RUNNING");
    herd.complaint("event listener garbage violates the protocol");
    let before = Instant::now();
    for _ in 0..20 {
        let pid = rustix::process::Pid::from_raw(herd.pid_of("a:a").try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        herd.reached("a:a", "RUNNING");
    }
    assert!(before.elapsed() < PATIENCE * patience());
    let is_full = |line: &String| line.contains("event listener silent: the buffer is full");
    assert!(herd.err.iter().any(is_full), "{}", herd.transcript());
    assert!(herd.memory() < 64 << 20, "{}", herd.memory());
    assert!(events(&herd, "processname:a ").contains("PROCESS_STATE_RUNNING"));
    herd.shut_down();
}

#[test]
fn a_client_sends_an_event_and_time_sends_ticks() {
    let config = "[unix_http_server]\nfile=s.sock\n".to_owned() + &listener("watch", "REMOTE_COMMUNICATION,TICK_5", "");
    let mut herd = start(&config);
    herd.reached("watch:watch", "RUNNING");
    let value = |text: &str| format!("<param><value><string>{text}</string></value></param>");
    let body = format!(
        "<methodCall><methodName>supervisor.sendRemoteCommEvent</methodName><params>{}{}</params></methodCall>",
        value("kind"),
        value("some data")
    );
    let mut client = UnixStream::connect(herd.dir.path("s.sock")).unwrap();
    let length = body.len();
    write!(
        client,
        "POST /RPC2 HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("<boolean>1</boolean>"), "{reply}");
    let text = events(&herd, "type:kind\nsome data|");
    assert!(text.contains("eventname:REMOTE_COMMUNICATION len:19|"), "{text}");
    let text = events(&herd, "eventname:TICK_5");
    let tick = text.lines().find(|line| line.contains("TICK_5")).unwrap();
    let when: u64 = field(tick, "when").parse().unwrap();
    assert_eq!(when % 5, 0, "{tick}");
    herd.shut_down();
}

#[test]
fn listeners_go_on_after_a_hand_over() {
    let config = listener("watch", "PROCESS_STATE_FATAL", "")
        + "[program:lost]\ncommand=/no/such/program\nstartretries=0\nautostart=false\n"
        + "[program:gone]\ncommand=/no/such/other\nstartretries=0\nautostart=false\n";
    let mut herd = start_with_fifos(&config, &["gate"]);
    let gate = herd.dir.path("gate");
    herd.reached("watch:watch", "RUNNING");
    for name in ["lost", "gone"] {
        herd.ask(&format!("start {name}"));
        herd.reached(&format!("{name}:{name}"), "FATAL");
    }
    // The listener has one event, and the other one waits.
    assert!(herd.ask("reexec").starts_with("ok: reexec: "));
    fs::write(&gate, "go\n").unwrap();
    events(&herd, "processname:lost");
    fs::write(&gate, "go\n").unwrap();
    let text = events(&herd, "processname:gone");
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("serial:1 pool:watch poolserial:1"), "{text}");
    herd.shut_down();
}

#[test]
fn a_reload_adds_and_removes_listeners() {
    let watch = listener("watch", "PROCESS_GROUP", "");
    let a = program("a", "exec sleep 1000", "");
    let mut herd = start(&a);
    herd.reached("a:a", "RUNNING");
    let conf = herd.dir.path("herd.conf");
    fs::write(&conf, watch.clone() + &a).unwrap();
    assert!(herd.ask("reload").contains("1 added"));
    events(&herd, "groupname:watch");
    fs::write(&conf, &watch).unwrap();
    assert!(herd.ask("reload").contains("1 removed"));
    assert!(events(&herd, "groupname:a").contains("PROCESS_GROUP_REMOVED"));
    fs::write(&conf, &a).unwrap();
    assert!(herd.ask("reload").contains("1 added, 1 removed"));
    herd.reached("watch:watch", "STOPPED");
    herd.shut_down();
}

#[test]
fn what_ends_with_the_taskmaster_is_refused_with_a_state_file() {
    let dir = Dir::new();
    let config = dir.file("herd.conf", &listener("watch", "EVENT", ""));
    let state = dir.path("state");
    let ended = run_to_end(&["--state".as_ref(), state.as_os_str(), config.as_os_str()]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert!(ended.err.contains("--state cannot be combined"), "{}", ended.err);
}

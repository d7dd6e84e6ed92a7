//! The server, as supervisorctl, dashboards and hostile clients use it.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{patience, wait_until};
use crate::driver::{Dir, PATIENCE, Taskmaster, aloud, binary, refused};

/// The version of supervisorctl that is tested.
const VERSION: &str = "4.3.0";

/// The path of supervisorctl. It is installed from PyPI into a virtual environment below target, as in ci/supervisord.
fn supervisorctl() -> Option<&'static PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("target/supervisord-{VERSION}"));
        let program = place.join("bin/supervisorctl");
        let run = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let runs = || run(program.to_str()?, &["--help"]).then(|| program.clone());
        runs().or_else(|| {
            let pip = place.join("bin/pip");
            let package = format!("supervisor=={VERSION}");
            let installed = run("python3", &["-m", "venv", place.to_str()?])
                && run(
                    pip.to_str()?,
                    &["install", "--quiet", "--disable-pip-version-check", &package],
                );
            installed.then(runs)?
        })
    });
    if found.is_none() {
        aloud("supervisorctl needs python3 with venv, and a network to install it");
    }
    found.as_ref()
}

const PROGRAMS: &str = "[program:a]\ncommand=sh -c \"echo hello; exec sleep 1000\"\nstartsecs=0\n\
    stdout_logfile=%(here)s/a.log\n\
    [program:web]\ncommand=sleep 1000\nprocess_name=web_%(process_num)d\nnumprocs=2\nstartsecs=0\n\
    [program:lost]\ncommand=/no/such/program\nautostart=false\nstartretries=0\n";

fn unix(programs: &str) -> String {
    format!("[supervisord]\nlogfile=%(here)s/own.log\n[unix_http_server]\nfile=%(here)s/s.sock\n{programs}")
}

/// Runs supervisorctl with these arguments. Returns its output and its exit status.
fn ctl(herd: &Taskmaster, arguments: &[&str]) -> (String, i32) {
    let socket = format!("unix://{}", herd.dir.path("s.sock").display());
    ctl_at(&["-s", &socket], arguments)
}

fn ctl_at(options: &[&str], arguments: &[&str]) -> (String, i32) {
    let program = supervisorctl().expect("was looked for");
    let output = Command::new(program)
        .args(options)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (text, output.status.code().unwrap_or(-1))
}

fn started(config: &str) -> Taskmaster {
    let mut herd = Taskmaster::start(config);
    herd.reached("a:a", "RUNNING");
    herd
}

#[test]
fn supervisorctl_starts_stops_signals_and_shows_processes() {
    if supervisorctl().is_none() {
        return;
    }
    let mut herd = started(&unix(PROGRAMS));
    herd.reached("web:web_1", "RUNNING");
    let (status, code) = ctl(&herd, &["status"]);
    assert_eq!(code, 3, "{status}");
    let states: Vec<Vec<&str>> = status
        .lines()
        .map(|line| line.split_whitespace().take(2).collect())
        .collect();
    let expected = [
        ["a", "RUNNING"],
        ["lost", "STOPPED"],
        ["web:web_0", "RUNNING"],
        ["web:web_1", "RUNNING"],
    ];
    assert_eq!(states, expected, "{status}");
    let pid = herd.pid_of("a:a");
    assert_eq!(ctl(&herd, &["pid", "a"]), (format!("{pid}\n"), 0));
    assert_eq!(ctl(&herd, &["pid"]).0.trim(), herd.pid().as_raw_nonzero().to_string());
    for (arguments, answer) in [
        (&["stop", "a"][..], "a: stopped\n"),
        (&["stop", "a"], "a: ERROR (not running)\n"),
        (&["start", "a"], "a: started\n"),
        (&["start", "a"], "a: ERROR (already started)\n"),
        (&["restart", "a"], "a: stopped\na: started\n"),
        (&["signal", "CONT", "a"], "a: signalled\n"),
        (&["signal", "NOPE", "a"], "a: ERROR (bad signal name)\n"),
        (&["start", "lost"], "lost: ERROR (no such file)\n"),
        (&["start", "nope"], "nope: ERROR (no such process)\n"),
        (&["start", "nope:*"], "nope: ERROR (no such group)\n"),
        (&["stop", "web:*"], "web:web_0: stopped\nweb:web_1: stopped\n"),
        (
            &["start", "web:web_0", "web:web_1"],
            "web:web_0: started\nweb:web_1: started\n",
        ),
        (&["clear", "a"], "a: cleared\n"),
        (&["version"], "4.3.0\n"),
    ] {
        assert_eq!(ctl(&herd, arguments).0, answer, "{arguments:?}");
    }
    assert!(ctl(&herd, &["avail"]).0.contains("web:web_1"));
    assert!(ctl(&herd, &["maintail"]).0.contains("RUNNING"));
    assert_eq!(ctl(&herd, &["shutdown"]), ("Shut down\n".to_owned(), 0));
    assert_eq!(herd.ended().code(), Some(0));
    assert!(!herd.dir.path("s.sock").exists());
}

#[test]
fn supervisorctl_shows_and_follows_logs() {
    if supervisorctl().is_none() {
        return;
    }
    let talks = "[program:a]\ncommand=sh -c \"mkfifo go; echo hello; read x < go; echo $x; exec sleep 1000\"\nstartsecs=0\n\
                 stdout_logfile=%(here)s/a.log\nstopasgroup=true\n";
    let herd = started(&unix(talks));
    let go = herd.dir.path("go");
    wait_until("the first line", PATIENCE, || {
        ctl(&herd, &["tail", "a"]).0 == "hello\n\n"
    });
    let socket = format!("unix://{}", herd.dir.path("s.sock").display());
    let mut tail = Command::new(supervisorctl().unwrap());
    let mut tail = tail
        .args(["-s", &socket, "tail", "-f", "a"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(tail.stdout.take().unwrap()));
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "==> Press Ctrl-C to exit <==");
    assert_eq!(next(), "hello");
    fs::write(&go, "more\n").unwrap();
    assert_eq!(next(), "more");
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(ctl(&herd, &["tail", "a", "stderr"]).0.contains("no log file") || herd.dir.path("a.log").exists());
    herd.shut_down();
}

#[test]
fn supervisorctl_rereads_updates_adds_and_removes() {
    if supervisorctl().is_none() {
        return;
    }
    let mut herd = started(&unix(PROGRAMS));
    assert_eq!(ctl(&herd, &["reread"]).0, "No config updates to processes\n");
    let changed = PROGRAMS
        .replace("echo hello;", "echo changed;")
        .replace("program:lost", "program:new");
    herd.dir.file("herd.conf", &unix(&changed));
    assert_eq!(
        ctl(&herd, &["reread"]).0,
        "a: changed\nlost: disappeared\nnew: available\n"
    );
    let (answer, _) = ctl(&herd, &["update"]);
    for line in [
        "a: stopped",
        "a: updated process group",
        "lost: removed process group",
        "new: added process group",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
    assert_eq!(ctl(&herd, &["reread"]).0, "No config updates to processes\n");
    herd.reached("a:a", "STOPPED");
    herd.reached("a:a", "RUNNING");
    assert_eq!(
        ctl(&herd, &["remove", "a"]).0,
        "ERROR: process/group still running: a\n"
    );
    assert_eq!(ctl(&herd, &["remove", "new"]).0, "new: removed process group\n");
    assert_eq!(ctl(&herd, &["add", "new"]).0, "new: added process group\n");
    assert_eq!(ctl(&herd, &["add", "new"]).0, "ERROR: process group already active\n");
    herd.dir.file("herd.conf", "[program:a]\ncommand=\n");
    assert!(ctl(&herd, &["reread"]).0.contains("CANT_REREAD"));
    herd.shut_down();
}

#[test]
fn supervisorctl_needs_the_password_of_a_tcp_port() {
    if supervisorctl().is_none() {
        return;
    }
    for password in ["secret", "{SHA}e5e9fa1ba31ecd1ae84f75caaa474f3a663f05f4"] {
        // The port is free at this moment, and the kernel gives it to no other listener soon.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = format!("[inet_http_server]\nport={port}\nusername=u\npassword={password}\n{PROGRAMS}");
        let herd = started(&server);
        let url = format!("http://127.0.0.1:{port}");
        let right = ctl_at(&["-s", &url, "-u", "u", "-p", "secret"], &["status", "a"]);
        assert!(right.0.contains("RUNNING") && right.1 == 0, "{right:?}");
        let wrong = ctl_at(&["-s", &url, "-u", "u", "-p", "wrong"], &["status", "a"]);
        assert!(!wrong.0.contains("RUNNING") && wrong.1 != 0, "{wrong:?}");
        herd.shut_down();
    }
}

#[test]
fn supervisorctl_reload_begins_anew_with_the_same_pid() {
    if supervisorctl().is_none() {
        return;
    }
    // Without an event file, because the reader of the test's FIFO ends with its first writer.
    let dir = Dir::new();
    dir.file("herd.conf", &unix(PROGRAMS));
    let mut command = Command::new(binary());
    command.arg("herd.conf");
    let herd = Taskmaster::run(dir, command);
    wait_until("the first taskmaster", PATIENCE, || {
        ctl(&herd, &["status", "a"]).0.contains("RUNNING")
    });
    let pid = ctl(&herd, &["pid", "a"]).0.trim().to_owned();
    assert_eq!(ctl(&herd, &["reload"]).0, "Restarted supervisord\n");
    wait_until("the new taskmaster", PATIENCE, || {
        let (status, _) = ctl(&herd, &["status", "a"]);
        status.contains("RUNNING") && !status.contains(&format!("pid {pid},"))
    });
    herd.shut_down();
}

/// Sends bytes to the server, and returns its reply.
fn exchange(herd: &Taskmaster, bytes: &[u8]) -> String {
    let mut client = UnixStream::connect(herd.dir.path("s.sock")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    // The server may refuse the request before its end.
    let _refused = client.write_all(bytes);
    let mut reply = Vec::new();
    let _reset = client.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /RPC2 HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn call(herd: &Taskmaster, method: &str, params: &str) -> String {
    let body = format!("<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>");
    exchange(herd, post(&body).as_bytes())
}

fn text(text: &str) -> String {
    format!("<param><value><string>{text}</string></value></param>")
}

#[test]
fn a_call_that_waits_delays_no_other_one() {
    let slow = "[program:slow]\ncommand=sleep 1000\nautostart=false\nstartsecs=1\n";
    let herd = started(&unix(&format!("{PROGRAMS}{slow}")));
    let mut waiting = UnixStream::connect(herd.dir.path("s.sock")).unwrap();
    let body = format!(
        "<methodCall><methodName>supervisor.startProcess</methodName><params>{}</params></methodCall>",
        text("slow")
    );
    waiting.write_all(post(&body).as_bytes()).unwrap();
    assert!(call(&herd, "supervisor.getProcessInfo", &text("slow")).contains("STARTING"));
    let mut reply = String::new();
    waiting.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("<boolean>1</boolean>"), "{reply}");
    assert!(call(&herd, "supervisor.getProcessInfo", &text("slow")).contains("RUNNING"));
    herd.shut_down();
}

#[test]
fn faults_have_supervisords_codes_and_methods_describe_themselves() {
    let herd = started(&unix(PROGRAMS));
    for (method, params, code) in [
        ("supervisor.nope", String::new(), 1),
        ("nope", String::new(), 1),
        ("supervisor.getPID", text("x"), 2),
        ("supervisor.startProcess", text("nope"), 10),
        ("supervisor.startProcess", text("a"), 60),
        ("supervisor.stopProcess", text("lost"), 70),
        ("supervisor.signalProcess", text("a") + &text("NOPE"), 11),
        ("supervisor.addProcessGroup", text("a"), 90),
        ("supervisor.removeProcessGroup", text("a"), 91),
        ("supervisor.sendProcessStdin", text("a") + &text("x"), 20),
        ("system.methodHelp", text("nope"), 4),
    ] {
        let reply = call(&herd, method, &params);
        assert!(
            reply.contains(&format!("<int>{code}</int>")) && reply.contains("<fault>"),
            "{method}: {reply}"
        );
    }
    assert!(call(&herd, "system.listMethods", "").contains("supervisor.getAllProcessInfo"));
    let signature = call(&herd, "system.methodSignature", &text("supervisor.startProcess"));
    assert!(
        signature.contains("<string>boolean</string></value><value><string>string"),
        "{signature}"
    );
    let member = |name: &str| {
        let name = format!("<member><name>methodName</name><value><string>{name}</string></value></member>");
        format!(
            "<value><struct>{name}<member><name>params</name><value><array><data/></array></value></member></struct>\
             </value>"
        )
    };
    let calls = format!(
        "<param><value><array><data>{}{}</data></array></value></param>",
        member("supervisor.getPID"),
        member("nope")
    );
    let replies = call(&herd, "system.multicall", &calls);
    assert!(
        replies.contains("faultCode") && replies.contains(&herd.pid().as_raw_nonzero().to_string()),
        "{replies}"
    );
    herd.shut_down();
}

#[test]
fn a_start_by_a_client_has_supervisords_results() {
    let programs = "[program:missing]\ncommand=/no/such/program\nautostart=false\n\
        [program:forbidden]\ncommand=/etc/passwd\nautostart=false\n\
        [program:searched]\ncommand=no-such-program\nautostart=false\n\
        [program:quick]\ncommand=sh -c \"exit 1\"\nautostart=false\nstartretries=0\nstartsecs=10\n";
    let mut herd = started(&unix(&format!("{programs}{PROGRAMS}")));
    for (name, code, state) in [
        ("missing", 20, "STOPPED"),
        ("forbidden", 21, "STOPPED"),
        ("searched", 20, "STOPPED"),
        ("quick", 50, "FATAL"),
    ] {
        let reply = call(&herd, "supervisor.startProcess", &text(name));
        assert!(reply.contains(&format!("<int>{code}</int>")), "{name}: {reply}");
        // What certainly cannot be executed is not tried.
        assert!(
            herd.ask(&format!("status {name}")).contains(state),
            "{}",
            herd.transcript()
        );
    }
    herd.shut_down();
}

#[test]
fn a_program_reads_what_is_sent_to_its_standard_input() {
    let reads = "[program:a]\ncommand=cat\nstdin=pipe\nstartsecs=0\nstdout_logfile=%(here)s/a.log\n";
    let herd = started(&unix(reads));
    let reply = call(&herd, "supervisor.sendProcessStdin", &(text("a") + &text("one\n")));
    assert!(reply.contains("<boolean>1</boolean>"), "{reply}");
    crate::common::wait_for_content(&herd.dir.path("a.log"), PATIENCE, |text| text == "one\n");
    herd.shut_down();
}

#[test]
fn the_socket_has_its_mode_and_is_not_taken_from_another_program() {
    let herd = started(&unix(PROGRAMS).replace("s.sock\n", "s.sock\nchmod=0770\n"));
    let socket = herd.dir.path("s.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o770);
    let same = format!("[unix_http_server]\nfile={}\n", socket.display());
    assert!(refused(&same).contains("Address already in use"));
    herd.shut_down();
    // A socket that a killed taskmaster left is replaced.
    let mut herd = started(&unix(PROGRAMS));
    assert!(herd.ask("reexec").contains("3 kept"));
    assert!(call(&herd, "supervisor.getState", "").contains("RUNNING"));
    herd.shut_down();
}

#[test]
fn hostile_clients_do_not_stop_the_supervision() {
    let crashes = "[program:crash]\ncommand=sh -c \"sleep 0.2; exit 1\"\nstartsecs=0\nautorestart=true\n";
    let mut herd = started(&unix(&format!("{PROGRAMS}{crashes}")));
    let long = vec![b'x'; 1_000_000];
    let header = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &long].concat();
    for (bytes, status) in [
        (b"\x16\x03\x01\x02\x00\n\n".as_slice(), "400"),
        (&header, "431"),
        (b"GET /nope HTTP/1.1\r\n\r\n", "404"),
        (b"GET /logtail/nope HTTP/1.1\r\n\r\n", "404"),
        (b"POST /RPC2 HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "413"),
        (post("<not xml").as_bytes(), "400"),
    ] {
        let reply = exchange(&herd, bytes);
        assert!(
            reply.starts_with("HTTP/1.") && reply[9..].starts_with(status),
            "{status}: {reply:.100}"
        );
    }
    // More connections than the server keeps. None of them sends a complete request.
    let socket = herd.dir.path("s.sock");
    let mut slow: Vec<UnixStream> = Vec::new();
    for _ in 0..1000 {
        let client = UnixStream::connect(&socket).unwrap();
        (&client).write_all(b"POST /RPC2 HTTP/1.1\r\nX: ").ok();
        slow.push(client);
    }
    let began = Instant::now();
    assert!(call(&herd, "supervisor.getState", "").contains("RUNNING"));
    assert!(began.elapsed() < Duration::from_secs(5) * patience());
    let run = herd.reached("crash:crash", "STARTING").run;
    for client in slow.iter().rev().take(50) {
        let mut client = client;
        let _closed = client.write_all(b"y");
    }
    while herd.reached("crash:crash", "STARTING").run < run + 3 {}
    assert!(herd.ask("status a").contains("RUNNING"));
    assert!(herd.memory() < 64 << 20);
    drop(slow);
    herd.shut_down();
}

#[test]
fn a_client_that_goes_away_while_it_waits_costs_nothing() {
    let slow = "[program:slow]\ncommand=sleep 1000\nautostart=false\nstartsecs=1\n";
    let herd = started(&unix(&format!("{PROGRAMS}{slow}")));
    let body = format!(
        "<methodCall><methodName>supervisor.startProcess</methodName><params>{}</params></methodCall>",
        text("slow")
    );
    for _ in 0..10 {
        let mut client = UnixStream::connect(herd.dir.path("s.sock")).unwrap();
        client.write_all(post(&body).as_bytes()).unwrap();
    }
    wait_until("the start", PATIENCE, || {
        call(&herd, "supervisor.getProcessInfo", &text("slow")).contains("RUNNING")
    });
    herd.shut_down();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let herd = started(&format!("[inet_http_server]\nport={port}\n{PROGRAMS}"));
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"GET /logtail/a HTTP/1.1\r\n\r\n").unwrap();
    drop(client);
    herd.shut_down();
}

//! The order of programs: a web server and its database.

use std::fs;

use crate::driver::Taskmaster;

/// A database that is ready when the test says so, a web server that requires it, and a page that comes after it.
const CONFIG: &str = "[program:web]\ncommand=sleep 1000\nrequires=database\nstartsecs=0\npriority=1\n\
    [program:database]\ncommand=sh -c \"read go < go; echo >&3; exec sleep 1001\"\nreadiness=fd:3\nstartretries=0\n\
    [program:page]\ncommand=sleep 1002\nafter=web\nstartsecs=0\npriority=2\n";

/// The numbers of the events in which a process reached a state.
fn places(herd: &Taskmaster, process: &str, state: &str) -> Vec<usize> {
    let is_it = |event: &&crate::driver::Event| event.process == process && event.to == state;
    let events = herd.events.iter().enumerate();
    events
        .filter(|(_, event)| is_it(event))
        .map(|(index, _)| index)
        .collect()
}

fn started() -> Taskmaster {
    let mut herd = Taskmaster::start_with_fifos(CONFIG, &["go"]);
    let go = herd.dir.path("go");
    herd.complaint("web waits for database");
    herd.reached("database:database", "STARTING");
    assert!(herd.ask("status web").ends_with("waits for database"));
    assert!(herd.living("sleep 1000").is_empty());
    fs::write(go, "now\n").unwrap();
    herd.reached("page:page", "RUNNING");
    herd
}

#[test]
fn a_web_server_starts_when_its_database_is_ready_and_is_stopped_before_it() {
    let mut herd = started();
    let order = [
        places(&herd, "database:database", "RUNNING")[0],
        places(&herd, "web:web", "STARTING")[0],
        places(&herd, "web:web", "RUNNING")[0],
        places(&herd, "page:page", "STARTING")[0],
    ];
    assert!(order.is_sorted(), "{}", herd.transcript());
    herd.say("shutdown");
    assert_eq!(herd.ended().code(), Some(0), "{}", herd.transcript());
    let order = [
        places(&herd, "page:page", "STOPPED")[0],
        places(&herd, "web:web", "STOPPING")[0],
        places(&herd, "web:web", "STOPPED")[0],
        places(&herd, "database:database", "STOPPING")[0],
    ];
    assert!(order.is_sorted(), "{}", herd.transcript());
}

#[test]
fn a_stop_of_the_database_stops_the_web_server_first() {
    let mut herd = started();
    assert!(herd.ask("stop database").starts_with("ok: stop database: "));
    herd.reached("web:web", "STOPPED");
    herd.reached("database:database", "STOPPED");
    let web = places(&herd, "web:web", "STOPPED")[0];
    assert!(
        web < places(&herd, "database:database", "STOPPING")[0],
        "{}",
        herd.transcript()
    );
    // A start of the web server alone waits. It does not start the database.
    assert!(herd.ask("start web").starts_with("ok: start web: "));
    herd.complaint("web waits for database");
    assert!(herd.ask("start database").starts_with("ok: start database: "));
    herd.reached("database:database", "STARTING");
    fs::write(herd.dir.path("go"), "now\n").unwrap();
    herd.reached("web:web", "RUNNING");
    herd.shut_down();
}

#[test]
fn a_database_that_fails_withdraws_the_start_of_the_web_server() {
    let config = "[program:web]\ncommand=sleep 1000\nrequires=database\nstartsecs=0\n\
        [program:database]\ncommand=sh -c \"read go < go; exit 1\"\nreadiness=fd:3\nstartretries=0\n";
    let mut herd = Taskmaster::start_with_fifos(config, &["go"]);
    let go = herd.dir.path("go");
    herd.complaint("web waits for database");
    fs::write(go, "now\n").unwrap();
    herd.reached("database:database", "FATAL");
    herd.complaint("web is not started: ");
    assert!(herd.ask("status web").ends_with("not started"));
    assert!(herd.states("web:web").is_empty(), "{}", herd.transcript());
    herd.shut_down();
}

#[test]
fn a_job_is_done_before_what_comes_after_it() {
    let config = "[program:web]\ncommand=sleep 1000\nrequires=migration\nstartsecs=0\n\
        [program:migration]\ncommand=sh -c \"read go < go\"\nreadiness=completes\n";
    let mut herd = Taskmaster::start_with_fifos(config, &["go"]);
    let go = herd.dir.path("go");
    herd.complaint("web waits for migration");
    fs::write(go, "now\n").unwrap();
    herd.reached("web:web", "RUNNING");
    assert_eq!(herd.states("migration:migration"), ["STARTING", "EXITED"]);
    herd.shut_down();
}

#[test]
fn a_reload_changes_the_order_and_keeps_the_processes() {
    let program = |name: &str, keys: &str| format!("[program:{name}]\ncommand=sleep 1000\nstartsecs=0\n{keys}");
    let config = |a: &str, b: &str, more: &str| program("a", a) + &program("b", b) + more;
    let mut herd = Taskmaster::start(&config("", "after=a\n", ""));
    herd.reached("b:b", "RUNNING");
    let (a, b) = (herd.pid_of("a:a"), herd.pid_of("b:b"));
    // The other way round, and a new program that both require.
    let new = program("c", "");
    let text = config("after=b\nrequires=c\n", "requires=c\n", &new);
    fs::write(herd.dir.path("herd.conf"), text).unwrap();
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 1 added, 0 removed, 2 changed, 0 unchanged"
    );
    herd.reached("c:c", "RUNNING");
    assert!(herd.ask("stop c").starts_with("ok: stop c: "));
    for name in ["a:a", "b:b", "c:c"] {
        herd.reached(name, "STOPPED");
    }
    let order = [
        places(&herd, "a:a", "STOPPED")[0],
        places(&herd, "b:b", "STOPPING")[0],
        places(&herd, "c:c", "STOPPING")[0],
    ];
    assert!(order.is_sorted(), "{}", herd.transcript());
    assert_eq!((herd.pid_of("a:a"), herd.pid_of("b:b")), (a, b));
    // The program that both required is gone, and nothing requires it any more.
    fs::write(herd.dir.path("herd.conf"), config("", "", "")).unwrap();
    assert_eq!(
        herd.ask("reload"),
        "ok: reload: 0 added, 1 removed, 2 changed, 0 unchanged"
    );
    herd.shut_down();
}

//! The state file: what it costs, and what is refused.

use super::*;

#[test]
fn a_file_that_cannot_be_used_is_refused_and_nothing_is_touched() {
    with_hosts(120, |state| {
        let groups = || vec![GroupSpec::new("a", sleeper()).policy(at_once())];
        let refused = |path: &Path| {
            let refused = builder().state_file(path).recover(groups(), Undescribed::Stop);
            refused.map(|_| ()).unwrap_err()
        };
        let pid = state.with_file_name("pid");
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&pid, &host.pid(named(&host, "a:0")).to_string());
                loop {
                    host.turn(LONG);
                }
            },
            || {
                told(&pid);
                assert!(matches!(refused(state), RecoverError::InUse(_)));
            },
        );
        let number: u32 = told(&pid).parse().unwrap();
        let whole = fs::read(state).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let path = state.with_file_name("changed");
            let mut bytes = whole.clone();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = refused(&path);
            fs::remove_file(&path).unwrap();
            error
        };
        let state_error = |error: RecoverError| match error {
            RecoverError::State { reason, .. } => reason,
            other => panic!("{other}"),
        };
        assert_eq!(state_error(with(&|bytes| bytes[0] = b'x')), StateError::Damaged);
        assert_eq!(state_error(with(&|bytes| bytes[8] = 9)), StateError::Version(9));
        assert_eq!(state_error(with(&|bytes| bytes.truncate(100))), StateError::Damaged);
        assert_eq!(state_error(with(&|bytes| bytes.truncate(5_000))), StateError::Damaged);
        let of_another = with(&|bytes| bytes[96..100].copy_from_slice(b"z80\0"));
        assert!(matches!(state_error(of_another), StateError::Architecture(_)));
        let area = usize::try_from(u64::from_le_bytes(whole[16..24].try_into().unwrap())).unwrap();
        assert_eq!(state_error(with(&|bytes| bytes[area + 60] ^= 1)), StateError::Damaged);
        let all_may_write = state.with_file_name("open");
        fs::write(&all_may_write, &whole).unwrap();
        fs::set_permissions(&all_may_write, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(refused(&all_may_write), RecoverError::Foreign(_)));
        let link = state.with_file_name("link");
        std::os::unix::fs::symlink(state, &link).unwrap();
        assert!(matches!(refused(&link), RecoverError::Foreign(_)));
        assert!(matches!(refused(Path::new("/dev/null")), RecoverError::Foreign(_)));
        assert!(matches!(
            refused(Path::new("/no/such/directory/state")),
            RecoverError::Io { .. }
        ));
        let plain = builder().state_file(state).build().unwrap_err();
        assert!(plain.to_string().contains("contains a state"), "{plain}");
        let wrong = vec![GroupSpec::new("a", sleeper()).instances(GroupSpec::MOST_INSTANCES + 1)];
        let wrong = builder().state_file(state).recover(wrong, Undescribed::Stop);
        assert!(matches!(wrong, Err(RecoverError::Error(Error::Spec(_)))), "{wrong:?}");
        // After all that it is still there.
        let mut host = host(state, groups());
        assert_eq!(host.pid(named(&host, "a:0")), number);
        host.shut_down();
    });
}

#[test]
fn a_state_of_an_earlier_boot_is_out_of_date() {
    with_hosts(120, |state| {
        let groups = || vec![GroupSpec::new("a", sleeper()).policy(at_once())];
        let pid = state.with_file_name("pid");
        killed_host(
            || {
                let mut host = host(state, groups());
                host.until_executed();
                tell(&pid, &host.pid(named(&host, "a:0")).to_string());
                stay(host);
            },
            || drop(told(&pid)),
        );
        let mut bytes = fs::read(state).unwrap();
        bytes[56] = if bytes[56] == b'0' { b'1' } else { b'0' };
        fs::write(state, bytes).unwrap();
        let recovered = recover(state, groups());
        assert!(recovered.groups[0].is_new && recovered.ended.is_empty());
        let number: u32 = told(&pid).parse().unwrap();
        assert!(common::processes::state(number).is_some(), "it was not touched");
    });
}

#[test]
fn a_supervisor_that_was_dropped_leaves_nothing_to_recover() {
    with_hosts(120, |state| {
        for _ in 0..3 {
            let mut host = host(state, vec![GroupSpec::new("a", sleeper()).policy(at_once())]);
            assert_eq!(host.status(named(&host, "a:0")).runs, 1);
            host.until_executed();
        }
        drop(builder().state_file(state).build().unwrap());
    });
}

#[test]
fn a_full_file_system_is_found_before_anything_happens() {
    if !root_or_skip("mounts") {
        return;
    }
    with_hosts(120, |state| {
        let mount = state.with_file_name("small");
        fs::create_dir(&mount).unwrap();
        let path = std::ffi::CString::new(mount.to_str().unwrap()).unwrap();
        // SAFETY: all texts end with NUL. The mount is that of this thread's own namespace.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    c"/".as_ptr(),
                    std::ptr::null(),
                    libc::MS_REC | libc::MS_PRIVATE,
                    std::ptr::null(),
                ) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    path.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    c"size=256k".as_ptr().cast(),
                ) == 0
        };
        if !mounted {
            return skipped("may not mount a file system");
        }
        let file = mount.join("state");
        let mut host = Host::with(builder().state_file(&file).build().unwrap());
        let small = host
            .supervisor
            .add(GroupSpec::new("small", sleeper()).policy(at_once()))
            .unwrap();
        let large = GroupSpec::new("large", sleeper()).instances(5_000);
        match host.supervisor.add(large) {
            Err(Error::StateFile(error)) => assert_eq!(error.raw_os_error(), Some(libc::ENOSPC)),
            other => panic!("{other:?}"),
        }
        assert!(matches!(host.supervisor.scale(small, 5_000), Err(Error::StateFile(_))));
        assert_eq!(host.supervisor.instances().count(), 1);
        host.supervisor.start(small).unwrap();
        host.until_state(named(&host, "small:0"), Running);
        host.shut_down();
        drop(host);
        // SAFETY: the path ends with NUL.
        assert_eq!(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) }, 0);
    });
}

/// How often the traced host restarts its instance.
const RESTARTS: u64 = 200;

/// Another test runs this test under strace. Without the variable it does nothing.
#[test]
fn a_traced_host() {
    let Some(path) = std::env::var_os("TRACED_STATE") else {
        return;
    };
    let mut builder = Supervisor::builder().spawns_in_flight(0);
    if !path.is_empty() {
        builder = builder.state_file(path);
    }
    let policy = for_ever().crash_budget(None).startup(Startup::Grace(Duration::ZERO));
    let mut host = Host::with(builder.build().unwrap());
    let id = host.start(Command::new("/bin/false"), policy);
    host.until("it was restarted", |host| host.status(id).runs > RESTARTS);
}

#[test]
fn a_stored_restart_makes_no_system_call_more() {
    with_hosts(300, |state| {
        let trace = state.with_file_name("trace");
        let calls = |path: &std::ffi::OsStr| {
            ignore_sigchld(false);
            // Only the host is traced, not its children.
            let traced = std::process::Command::new("strace")
                .arg("-o")
                .arg(&trace)
                .arg(std::env::current_exe().unwrap())
                .args(["files::a_traced_host", "--exact", "--test-threads=1"])
                .env("TRACED_STATE", path)
                .env_remove(common::MARKER)
                .output();
            ignore_sigchld(true);
            let traced = traced.ok().filter(|traced| traced.status.success())?;
            drop(traced);
            Some(fs::read_to_string(&trace).unwrap().lines().count() as u64)
        };
        let (Some(without), Some(with)) = (calls("".as_ref()), calls(state.as_os_str())) else {
            return skipped("strace is missing or may not trace");
        };
        if without < RESTARTS {
            return skipped("strace does not trace a host");
        }
        assert!(with < without + RESTARTS / 2, "{with} calls instead of {without}");
    });
}

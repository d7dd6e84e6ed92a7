//! What the injected faults have found. Each fault has a test that names the promise.

use crate::campaign::run_kind;

#[test]
fn a_released_process_is_given_to_the_host_even_if_the_timer_fails() {
    run_kind("give", "release", "timerfd_settime", libc::ENOMEM);
}

#[test]
fn a_closed_readiness_pipe_is_a_failure_even_if_no_descriptor_is_free() {
    run_kind("readiness", "failed", "open", libc::EMFILE);
}

#[test]
fn a_spawn_that_cannot_be_watched_leaves_no_descriptor() {
    run_kind("readiness", "start with a pipe", "fcntl", libc::EMFILE);
}

#[test]
fn a_check_of_limits_without_a_free_descriptor_leaves_no_cgroup() {
    run_kind("cgroup", "add with a cgroup", "openat", libc::EMFILE);
}

#[test]
fn a_refused_read_of_a_limit_is_an_error_of_the_hand_over() {
    run_kind("hand-over", "hand over", "prlimit64", libc::EPERM);
}

#[test]
fn a_drop_reaps_its_child_even_if_a_wait_fails() {
    run_kind("child", "drop alive", "ppoll", libc::ENOMEM);
}

#[test]
fn a_group_whose_leader_cannot_be_probed_is_stopped() {
    run_kind("ladder", "the group stops", "pidfd_send_signal", libc::EINVAL);
}

#[test]
fn a_recovery_without_a_free_descriptor_keeps_the_address_of_its_socket() {
    run_kind("recover", "recover", "socket", libc::EMFILE);
}

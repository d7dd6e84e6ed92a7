//! Makes every system call of the library fail: each call, with each errno that its manual page documents, once and for
//! good.
//!
//! The scenarios (`scenarios.rs`, `generation.rs`) use every part of the library. Each runs once without a fault, which
//! finds the calls, and then once for each fault, in a process of its own. A run with a fault must report a typed error
//! or do without the call, as the table of `expected.rs` says. It must leave no descriptor, process, mapping or cgroup.
//! A healthy process must start and stop afterwards, with the same supervisor and with another one. No run may hang or
//! panic.
//!
//! The spawns (`spawns.rs`) have a table of their own, which names the step of each failure (`calls.rs`).
//!
//! ```text
//! cargo test --test errnos                            a sample of the faults
//! PIDHERD_TEST_ERRNOS=200 PIDHERD_TEST_SEED=7 cargo test --test errnos
//!                                                     another sample
//! bash ci/errnos                                      all faults
//! PIDHERD_TEST_ERRNO=supervise:add/host/openat/0/EMFILE/once cargo test --test errnos
//!                                                     one fault, which a failure names
//! ```
#![cfg(target_arch = "x86_64")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../host/mod.rs"]
mod host;

mod calls;
mod campaign;
mod expected;
mod finds;
mod generation;
mod manual;
mod scenarios;
mod shim;
mod spawns;
mod stage;
mod ways;

use scenarios::SCENARIOS;

macro_rules! tests {
    ($($test:ident: $scenario:literal;)*) => {
        $(
            #[test]
            fn $test() {
                campaign::run(SCENARIOS.iter().find(|scenario| scenario.name == $scenario).unwrap());
            }
        )*

        #[test]
        fn every_scenario_has_a_test() {
            let tests = [$($scenario),*];
            let lacks = SCENARIOS.iter().find(|scenario| !tests.contains(&scenario.name));
            assert_eq!(lacks.map(|scenario| scenario.name), None);
        }
    };
}

tests! {
    every_call_of_a_group_can_fail: "supervise";
    every_call_of_a_restart_can_fail: "restarts";
    every_call_of_a_stop_ladder_can_fail: "ladder";
    every_call_of_readiness_can_fail: "readiness";
    every_call_of_a_notify_socket_can_fail: "notify";
    every_call_of_commands_around_a_run_can_fail: "commands";
    every_call_of_an_init_can_fail: "orphans";
    every_call_of_a_state_file_can_fail: "state";
    every_call_of_a_recovery_can_fail: "recover";
    every_call_of_a_hand_over_can_fail: "hand-over";
    every_call_of_a_take_over_can_fail: "take-over";
    every_call_of_a_release_and_an_adoption_can_fail: "give";
    every_call_of_a_drop_can_fail: "drop";
    every_call_of_a_child_can_fail: "child";
    every_call_of_the_primitives_can_fail: "primitives";
    every_call_of_runs_with_cgroups_can_fail: "cgroup";
    every_call_of_a_cgroup_can_fail: "leaf";
}

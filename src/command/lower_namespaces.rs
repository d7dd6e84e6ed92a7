//! Translates the namespaces of a command to steps.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::error::{CommandError, SpawnStep};
use super::namespace::{Namespace, Namespaces, Origin, PidNamespace};
use super::program::{Descriptor, Lowering, Source};
use crate::procfs::self_::is_pidfd;
use crate::sys::namespace::kind_of;

/// A namespace that the child enters.
#[derive(Debug)]
pub(super) struct Entry {
    kind: Namespace,
    label: usize,
    /// The child's descriptor of a given one.
    given: Option<RawFd>,
}

impl Lowering {
    /// The PID namespace of the child.
    pub(super) fn lower_pid_namespace(&mut self, namespaces: &Namespaces) -> Result<PidNamespace, CommandError> {
        let is_new = |kind| matches!(namespaces.get(kind), Some(Origin::New));
        if namespaces.mounts_proc && !(namespaces.has_pid() && is_new(Namespace::Mount)) {
            return Err(CommandError::Needs {
                what: "a proc of its own",
                needs: "a PID namespace and a new mount namespace",
            });
        }
        for (kind, origin) in &namespaces.entries {
            if let Origin::Given(namespace) = origin {
                check_kind(*kind, &namespace.0)?;
            }
        }
        Ok(match namespaces.get(Namespace::Pid) {
            None => PidNamespace::Host,
            Some(Origin::New) => PidNamespace::New(self.new_label(Namespace::Pid)),
            Some(Origin::Given(namespace)) => {
                PidNamespace::Given(Arc::clone(&namespace.0), self.given_label(Namespace::Pid))
            }
        })
    }

    /// All other namespaces. A given one is a descriptor of the child until the child has entered it, because that step
    /// comes after files are opened and all other descriptors are closed.
    pub(super) fn place_namespaces(&mut self, namespaces: &Namespaces) -> Vec<Entry> {
        let others = namespaces.entries.iter().filter(|(kind, _)| *kind != Namespace::Pid);
        let entries = others.map(|(kind, origin)| match origin {
            Origin::New => Entry {
                kind: *kind,
                label: self.new_label(*kind),
                given: None,
            },
            Origin::Given(namespace) => {
                let (label, target) = (self.given_label(*kind), self.first_gap());
                let source = Source::Given(Arc::clone(&namespace.0));
                let place = self.descriptors.partition_point(|other| other.target < target);
                self.descriptors.insert(place, Descriptor { target, source, label });
                Entry {
                    kind: *kind,
                    label,
                    given: Some(target),
                }
            }
        });
        entries.collect()
    }

    /// The steps for them.
    pub(super) fn lower_namespaces(&mut self, entries: &[Entry]) {
        for &Entry { kind, label, given } in entries {
            match given {
                Some(target) => self.body.setns(label, target, kind.as_raw()),
                None => self.body.unshare(label, kind.as_raw()),
            }
            if kind == Namespace::Mount && given.is_none() {
                let label = self.value(SpawnStep::Mount, "/ as a slave of the host's");
                self.body.make_mounts_slaves(label);
            }
        }
    }

    /// The step after the root directory was changed.
    pub(super) fn lower_proc(&mut self, namespaces: &Namespaces) {
        if namespaces.mounts_proc {
            let label = self.value(SpawnStep::Mount, "a proc on /proc");
            self.body.mount_proc(label);
        }
    }

    fn new_label(&mut self, kind: Namespace) -> usize {
        self.value(SpawnStep::Namespace, format_args!("a new {kind}"))
    }

    fn given_label(&mut self, kind: Namespace) -> usize {
        self.value(SpawnStep::Namespace, format_args!("the given {kind}"))
    }
}

/// Rejects a descriptor that is neither a namespace of this kind nor a pidfd.
fn check_kind(kind: Namespace, namespace: &OwnedFd) -> Result<(), CommandError> {
    match kind_of(namespace.as_fd()) {
        Ok(own) if own == kind.as_raw() => Ok(()),
        Err(_) if is_pidfd(namespace).unwrap_or(false) => Ok(()),
        Ok(_) | Err(_) => Err(CommandError::NotANamespace { kind }),
    }
}

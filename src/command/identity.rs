//! The user and the groups of a child.

use std::ffi::{CString, OsString};

use super::error::CommandError;
use crate::sys::{process, users};

/// The settings of a command for the user and the groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub user: Option<String>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Option<Vec<u32>>,
}

/// The ids that the child sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The supplementary groups to set; `None` leaves them unchanged.
    pub groups: Option<Vec<u32>>,
    /// The entry of the user database that the command names.
    pub login: Option<Login>,
}

/// The data from which login(1) sets environment variables.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub name: String,
    pub home: OsString,
    pub shell: OsString,
}

/// The largest number of supplementary groups (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// The host's own ids.
#[derive(Debug)]
pub(super) struct Host {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Host {
    pub(super) fn current() -> Host {
        let groups = rustix::process::getgroups().unwrap_or_default();
        Host {
            uid: process::effective_uid(),
            gid: process::effective_gid(),
            groups: groups.into_iter().map(|group| group.as_raw()).collect(),
        }
    }
}

impl Ids {
    /// Whether any id is set, so that the kernel clears the dumpable flag of the shared memory.
    pub(super) fn any(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups.is_some()
    }

    /// Whether the child becomes an unprivileged user, other than the host's.
    pub(super) fn drops(&self, host: &Host) -> bool {
        self.uid.is_some_and(|uid| uid != 0 && uid != host.uid)
    }
}

impl Identity {
    /// Looks up the user, and determines the supplementary groups.
    pub(super) fn resolve(&self, host: &Host) -> Result<Ids, CommandError> {
        let user = self.user.as_deref().map(look_up).transpose()?;
        let (account, listed) = user.map(|user| (user.account, user.groups)).unzip();
        let uid = self.uid.or(account.as_ref().map(|account| account.uid));
        let gid = self.gid.or(account.as_ref().map(|account| account.gid));
        let listed = self.groups.clone().or(listed);
        let groups = match listed {
            Some(groups) => Some(groups),
            None if uid.is_some() || gid.is_some() => Some(vec![gid.unwrap_or(host.gid)]),
            None => None,
        };
        check("uid", uid)?;
        check("gid", gid)?;
        for &group in groups.iter().flatten() {
            check("supplementary group", Some(group))?;
        }
        if let Some(groups) = groups.as_ref().filter(|groups| groups.len() > GROUPS_MAX) {
            return Err(CommandError::TooManyGroups { count: groups.len() });
        }
        let groups = groups.filter(|groups| !has_already(host, gid, groups));
        let login = self.user.clone().zip(account).map(|(name, account)| Login {
            name,
            home: account.home,
            shell: account.shell,
        });
        Ok(Ids {
            uid,
            gid,
            groups,
            login,
        })
    }
}

/// Whether a host without privileges has exactly these groups. Such a host may not set groups, not even the same ones,
/// and its groups cannot change either.
fn has_already(host: &Host, gid: Option<u32>, groups: &[u32]) -> bool {
    let set = |groups: &[u32], primary: u32| {
        let mut set: Vec<u32> = groups.iter().copied().chain([primary]).collect();
        set.sort_unstable();
        set.dedup();
        set
    };
    host.uid != 0 && set(&host.groups, host.gid) == set(groups, gid.unwrap_or(host.gid))
}

fn check(what: &'static str, id: Option<u32>) -> Result<(), CommandError> {
    match id {
        Some(u32::MAX) => Err(CommandError::NoId { what }),
        Some(_) | None => Ok(()),
    }
}

fn look_up(name: &str) -> Result<users::User, CommandError> {
    let no_such_user = || CommandError::NoSuchUser { name: name.to_owned() };
    let text = CString::new(name).map_err(|_| no_such_user())?;
    match users::user_by_name(&text) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(no_such_user()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            Err(CommandError::UserLookup {
                name: name.to_owned(),
                errno,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Host = Host {
        uid: 0,
        gid: 0,
        groups: Vec::new(),
    };

    #[test]
    fn groups_are_never_inherited_with_other_ids() {
        let identity = Identity {
            uid: Some(1000),
            ..Identity::default()
        };
        let ids = identity.resolve(&ROOT).unwrap();
        assert_eq!(
            ids,
            Ids {
                uid: Some(1000),
                gid: None,
                groups: Some(vec![0]),
                login: None,
            }
        );
        let identity = Identity {
            gid: Some(7),
            ..Identity::default()
        };
        assert_eq!(identity.resolve(&ROOT).unwrap().groups, Some(vec![7]));
        assert_eq!(Identity::default().resolve(&ROOT).unwrap(), Ids::default());
    }

    #[test]
    fn a_user_gets_all_its_groups() {
        let identity = Identity {
            user: Some("root".to_owned()),
            ..Identity::default()
        };
        let ids = identity.resolve(&ROOT).unwrap();
        assert_eq!((ids.uid, ids.gid), (Some(0), Some(0)));
        assert!(ids.groups.unwrap().contains(&0));
        let login = ids.login.unwrap();
        assert_eq!((login.name.as_str(), login.home.to_str()), ("root", Some("/root")));
    }

    #[test]
    fn minus_one_and_unknown_users_are_refused() {
        let identity = Identity {
            uid: Some(u32::MAX),
            ..Identity::default()
        };
        assert_eq!(identity.resolve(&ROOT), Err(CommandError::NoId { what: "uid" }));
        let identity = Identity {
            groups: Some(vec![1, u32::MAX]),
            ..Identity::default()
        };
        assert_eq!(
            identity.resolve(&ROOT),
            Err(CommandError::NoId {
                what: "supplementary group"
            })
        );
        for name in ["no-such-user", "", "a\0b"] {
            let identity = Identity {
                user: Some(name.to_owned()),
                ..Identity::default()
            };
            assert_eq!(
                identity.resolve(&ROOT),
                Err(CommandError::NoSuchUser { name: name.to_owned() })
            );
        }
    }

    #[test]
    fn an_unprivileged_host_sets_no_groups_that_it_has() {
        let host = Host {
            uid: 1000,
            gid: 1000,
            groups: vec![27, 1000],
        };
        let identity = |groups: &[u32]| Identity {
            uid: Some(1000),
            gid: Some(1000),
            groups: Some(groups.to_owned()),
            ..Identity::default()
        };
        assert_eq!(identity(&[1000, 27]).resolve(&host).unwrap().groups, None);
        assert_eq!(identity(&[27]).resolve(&host).unwrap().groups, None);
        assert_eq!(identity(&[28]).resolve(&host).unwrap().groups, Some(vec![28]));
        assert!(!identity(&[27]).resolve(&host).unwrap().drops(&host));
    }
}

//! The user and the groups of a child.

use std::ffi::{CString, OsString};

use super::error::CommandError;
use crate::sys::{process, users};

/// The settings of a command for the user and the groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub user: Option<String>,
    pub uid: Option<u32>,
    /// The name of the primary group.
    pub group: Option<String>,
    pub gid: Option<u32>,
    pub groups: Option<Vec<u32>>,
    pub group_names: Option<Vec<String>>,
    pub added_groups: Vec<u32>,
    pub added_group_names: Vec<String>,
    /// Whether the variables of a login are set. `None`: if the user is named.
    pub login_env: Option<bool>,
}

/// The ids that the child sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The supplementary groups to set; `None` leaves them unchanged.
    pub groups: Option<Vec<u32>>,
    /// The entry of the user database that the command names.
    pub login: Option<Login>,
}

/// The data from which login(1) sets environment variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    pub name: OsString,
    pub home: OsString,
    pub shell: OsString,
}

/// The largest number of supplementary groups (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// The host's own ids.
#[derive(Clone, Debug)]
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
        let gid = match (self.gid, &self.group) {
            (Some(gid), _) => Some(gid),
            (None, Some(name)) => Some(look_up_group(name)?),
            (None, None) => account.as_ref().map(|account| account.gid),
        };
        let groups = self.resolve_groups(host, listed, uid, gid)?;
        check("uid", uid)?;
        check("gid", gid)?;
        for &group in groups.iter().flatten() {
            check("supplementary group", Some(group))?;
        }
        if let Some(groups) = groups.as_ref().filter(|groups| groups.len() > GROUPS_MAX) {
            return Err(CommandError::TooManyGroups { count: groups.len() });
        }
        let groups = groups.filter(|groups| !has_already(host, gid, groups));
        let login = match self.login_env {
            Some(false) => None,
            Some(true) if account.is_none() => Some(look_up_uid(uid.unwrap_or(host.uid))?),
            Some(true) | None => account,
        };
        let login = login.map(|account| Login {
            name: account.name,
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

impl Identity {
    /// The supplementary groups to set; `None` leaves them unchanged. `of_user` are those of the user that the command
    /// names.
    fn resolve_groups(
        &self,
        host: &Host,
        of_user: Option<Vec<u32>>,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Option<Vec<u32>>, CommandError> {
        let by_name = |names: &[String]| {
            names
                .iter()
                .map(|name| look_up_group(name))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut added = self.added_groups.clone();
        added.extend(by_name(&self.added_group_names)?);
        let named = self.group_names.as_deref().map(by_name).transpose()?;
        let listed = match (&self.groups, named) {
            (None, None) => of_user,
            (groups, named) => Some(
                groups
                    .iter()
                    .flatten()
                    .copied()
                    .chain(named.unwrap_or_default())
                    .collect(),
            ),
        };
        let groups = match listed {
            Some(groups) => Some(groups),
            None if uid.is_some() || gid.is_some() => Some(vec![gid.unwrap_or(host.gid)]),
            None if !added.is_empty() => Some(host.groups.clone()),
            None => None,
        };
        Ok(groups.map(|mut groups| {
            for group in added {
                if !groups.contains(&group) {
                    groups.push(group);
                }
            }
            groups
        }))
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

/// The entry of the user database with this uid.
fn look_up_uid(uid: u32) -> Result<users::Account, CommandError> {
    let failed = |error: std::io::Error| CommandError::UserLookup {
        name: uid.to_string(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    let account = users::account_by_uid(uid).map_err(failed)?;
    account.ok_or_else(|| CommandError::NoSuchUser { name: uid.to_string() })
}

/// The gid of a group.
fn look_up_group(name: &str) -> Result<u32, CommandError> {
    let no_such_group = || CommandError::NoSuchGroup { name: name.to_owned() };
    let text = CString::new(name).map_err(|_| no_such_group())?;
    let failed = |error: std::io::Error| CommandError::GroupLookup {
        name: name.to_owned(),
        errno: error.raw_os_error().unwrap_or(libc::EIO),
    };
    users::group_by_name(&text).map_err(failed)?.ok_or_else(no_such_group)
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
        assert_eq!(
            (login.name.to_str(), login.home.to_str()),
            (Some("root"), Some("/root"))
        );
    }

    #[test]
    fn groups_by_name_are_those_with_these_names() {
        let resolve = |identity: Identity| identity.resolve(&ROOT).map(|ids| (ids.gid, ids.groups));
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let daemon = group_in_file("daemon");
        let identity = Identity {
            group: Some("daemon".to_owned()),
            ..Identity::default()
        };
        assert_eq!(resolve(identity.clone()), Ok((Some(daemon), Some(vec![daemon]))));
        let identity = Identity {
            gid: Some(7),
            ..identity
        };
        assert_eq!(resolve(identity).unwrap().0, Some(7), "the number takes precedence");
        let identity = Identity {
            groups: Some(vec![77]),
            group_names: Some(names(&["daemon", "root"])),
            ..Identity::default()
        };
        assert_eq!(resolve(identity), Ok((None, Some(vec![77, daemon, 0]))));
        for identity in [
            Identity {
                group: Some("no such".to_owned()),
                ..Identity::default()
            },
            Identity {
                group_names: Some(names(&["root", "no such"])),
                ..Identity::default()
            },
            Identity {
                added_group_names: names(&["no such"]),
                ..Identity::default()
            },
        ] {
            assert_eq!(
                resolve(identity),
                Err(CommandError::NoSuchGroup {
                    name: "no such".to_owned()
                })
            );
        }
    }

    /// The gid of a group in group(5).
    fn group_in_file(name: &str) -> u32 {
        let text = std::fs::read_to_string("/etc/group").unwrap();
        let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let line = lines.find(|fields| fields.first() == Some(&name)).unwrap();
        line.get(2).unwrap().parse().unwrap()
    }

    #[test]
    fn added_groups_come_after_those_that_the_child_has_anyway() {
        let host = Host {
            uid: 0,
            gid: 0,
            groups: vec![4, 5],
        };
        let resolve = |identity: Identity| {
            let identity = Identity {
                added_groups: vec![5, 6],
                added_group_names: vec!["root".to_owned()],
                ..identity
            };
            identity.resolve(&host).unwrap().groups.unwrap()
        };
        assert_eq!(resolve(Identity::default()), [4, 5, 6, 0]);
        assert_eq!(
            resolve(Identity {
                gid: Some(9),
                ..Identity::default()
            }),
            [9, 5, 6, 0]
        );
        assert_eq!(
            resolve(Identity {
                groups: Some(vec![5]),
                ..Identity::default()
            }),
            [5, 6, 0]
        );
        let of_user = resolve(Identity {
            user: Some("root".to_owned()),
            ..Identity::default()
        });
        assert!(of_user.starts_with(&[0]) && of_user.ends_with(&[5, 6]), "{of_user:?}");
        assert_eq!(
            Identity {
                added_groups: vec![u32::MAX],
                ..Identity::default()
            }
            .resolve(&host),
            Err(CommandError::NoId {
                what: "supplementary group"
            })
        );
    }

    #[test]
    fn the_variables_of_a_login_can_be_had_for_a_uid_and_left_out_for_a_user() {
        let login = |identity: Identity| identity.resolve(&ROOT).map(|ids| ids.login);
        let asked = Identity {
            login_env: Some(true),
            ..Identity::default()
        };
        let name = |login: Option<Login>| login.map(|login| login.name.into_string().unwrap());
        assert_eq!(login(asked.clone()).map(name), Ok(Some("root".to_owned())));
        let daemon = look_up("daemon").unwrap().account.uid;
        let of_daemon = Identity {
            uid: Some(daemon),
            ..asked.clone()
        };
        assert_eq!(login(of_daemon).map(name), Ok(Some("daemon".to_owned())));
        let unknown = Identity {
            uid: Some(3_999_999),
            ..asked.clone()
        };
        assert_eq!(
            login(unknown),
            Err(CommandError::NoSuchUser {
                name: "3999999".to_owned()
            })
        );
        let unasked = Identity {
            user: Some("daemon".to_owned()),
            login_env: Some(false),
            ..Identity::default()
        };
        assert_eq!(login(unasked), Ok(None));
        let named = Identity {
            user: Some("daemon".to_owned()),
            uid: Some(0),
            ..asked
        };
        assert_eq!(
            login(named).map(name),
            Ok(Some("daemon".to_owned())),
            "the name takes precedence"
        );
    }

    #[test]
    fn the_shared_memory_loses_its_dumpable_flag_by_each_kind_of_id() {
        assert!(!Ids::default().any());
        for ids in [
            Ids {
                uid: Some(0),
                ..Ids::default()
            },
            Ids {
                gid: Some(0),
                ..Ids::default()
            },
            Ids {
                groups: Some(Vec::new()),
                ..Ids::default()
            },
        ] {
            assert!(ids.any(), "{ids:?}");
        }
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

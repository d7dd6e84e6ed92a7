//! The accounts for `user`, read from /etc/passwd and /etc/group.
//!
//! The C library also supports LDAP and similar services, but it may load code and open sockets for them. The
//! taskmaster avoids that. A user that is missing here is an error before any start, so no program runs as another
//! user by mistake.

use std::fs;

/// A line of /etc/passwd, and the groups that list the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name of the user.
    pub name: String,
    /// The numeric id of the user.
    pub uid: u32,
    /// The id of the primary group.
    pub gid: u32,
    /// The ids of all its groups, the primary one first.
    pub groups: Vec<u32>,
}

/// The texts of /etc/passwd and /etc/group.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// The text of /etc/passwd.
    pub passwd: String,
    /// The text of /etc/group.
    pub group: String,
}

impl Accounts {
    /// The accounts of this machine. A file that cannot be read counts as empty.
    pub fn of_system() -> Accounts {
        let read = |path| {
            fs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        Accounts {
            passwd: read("/etc/passwd"),
            group: read("/etc/group"),
        }
    }

    /// The user with this name or number.
    ///
    /// # Errors
    /// No such user exists.
    pub fn find(&self, wanted: &str) -> Result<User, String> {
        let number: Option<u32> = wanted.parse().ok();
        let is_wanted = |user: &User| number.map_or(user.name == wanted, |number| user.uid == number);
        let found = self.passwd.lines().filter_map(|line| self.user(line)).find(is_wanted);
        found.ok_or_else(|| "there is no such user".to_owned())
    }

    /// The id of the group with this name or number.
    ///
    /// # Errors
    /// No such group exists.
    pub fn find_group(&self, wanted: &str) -> Result<u32, String> {
        let number: Option<u32> = wanted.parse().ok();
        let groups = self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
        });
        let mut is_wanted = groups.filter(|&(name, gid)| number.map_or(name == wanted, |number| gid == number));
        let found = is_wanted.next().map(|(_, gid)| gid);
        found.ok_or_else(|| "there is no such group".to_owned())
    }

    /// The home directory of the user with this name.
    pub fn home(&self, name: &str) -> Option<&str> {
        let line = self.passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split(':').nth(5)
    }

    /// The home directory of the first user with this number.
    pub fn home_of(&self, uid: u32) -> Option<&str> {
        let is_it = |line: &&str| line.split(':').nth(2) == Some(uid.to_string().as_str());
        self.passwd.lines().find(is_it)?.split(':').nth(5)
    }

    fn user(&self, line: &str) -> Option<User> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let mut groups = vec![gid];
        groups.extend(self.groups_listing(&name).filter(|&other| other != gid));
        Some(User { name, uid, gid, groups })
    }

    fn groups_listing<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.group.lines().filter_map(move |line| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\n# x\n\nbad:x:y:z\nann:x:1000:100:Ann:/home/ann:/bin/sh\n"
                .to_owned(),
            group: "root:x:0:\nusers:x:100:ann\nwheel:x:10:bob,ann\nann2:x:11:annette\n".to_owned(),
        }
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let ann = User {
            name: "ann".to_owned(),
            uid: 1000,
            gid: 100,
            groups: vec![100, 10],
        };
        assert_eq!(accounts().find("ann"), Ok(ann.clone()));
        assert_eq!(accounts().find("1000"), Ok(ann));
        assert_eq!(accounts().home("ann"), Some("/home/ann"));
        assert_eq!((accounts().home_of(0), accounts().home_of(7)), (Some("/root"), None));
    }

    #[test]
    fn an_unknown_user_is_refused() {
        for wanted in ["", "Ann", "bob", "bad", "1001", "-1", "4294967295", "#", "x"] {
            assert!(accounts().find(wanted).is_err(), "{wanted}");
        }
        assert_eq!(accounts().home("bob"), None);
        assert!(Accounts::default().find("root").is_err());
    }
}

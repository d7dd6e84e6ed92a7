//! The keys of an `[fcgi-program:x]` about its socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::keys::Keys;
use super::users::User;
use super::values;
use super::world::World;

/// The keys that a program does not have.
pub const KEYS: &[&str] = &["socket", "socket_owner", "socket_mode", "socket_backlog"];

/// The socket that all processes of a FastCGI program accept connections from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FcgiSocket {
    /// Where it listens.
    pub place: FcgiPlace,
    /// The number of connections that wait. `None` means the largest number of the kernel.
    pub backlog: Option<i32>,
}

/// Where a FastCGI socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FcgiPlace {
    /// A socket in the file system.
    Unix {
        /// The path of the socket.
        path: PathBuf,
        /// The permissions of the file.
        mode: u32,
        /// The user and the group of the file.
        owner: (Option<u32>, Option<u32>),
    },
    /// A port.
    Inet(SocketAddr),
}

impl FcgiSocket {
    /// The address as the file writes it.
    pub fn url(&self) -> String {
        match &self.place {
            FcgiPlace::Unix { path, .. } => format!("unix://{}", path.display()),
            FcgiPlace::Inet(address) => format!("tcp://{address}"),
        }
    }

    /// Reads these keys. `user` is that of the program.
    pub fn read(keys: &mut Keys<'_>, world: &World, user: Option<&User>) -> Option<FcgiSocket> {
        if !keys.has("socket") {
            keys.fail("socket=... is missing");
        }
        let owner = keys.optional("socket_owner", |text| owner(text, world));
        let mode = keys.optional("socket_mode", values::umask);
        let backlog = keys.optional("socket_backlog", |text| match values::integer(text)? {
            backlog @ 1..=65_535 => i32::try_from(backlog).map_err(|error| error.to_string()),
            _ => Err("expected a number from 1 to 65535".to_owned()),
        });
        let place = keys.optional("socket", |text| place(text, world))?;
        let place = match place {
            FcgiPlace::Unix { path, .. } => FcgiPlace::Unix {
                path,
                mode: mode.unwrap_or(0o700),
                owner: owner.unwrap_or_else(|| match user.filter(|user| user.uid != world.uid) {
                    Some(user) => (Some(user.uid), Some(user.gid)),
                    None => (None, None),
                }),
            },
            inet => {
                for key in ["socket_owner", "socket_mode"] {
                    if keys.has(key) {
                        keys.complain(key, "only a socket in the file system has it");
                    }
                }
                inet
            }
        };
        Some(FcgiSocket { place, backlog })
    }
}

/// Parses `unix:///PATH` or `tcp://HOST:PORT`. A name of the machine's own loopback interface needs no name service.
fn place(text: &str, world: &World) -> Result<FcgiPlace, String> {
    if let Some(path) = text.strip_prefix("unix://") {
        return Ok(FcgiPlace::Unix {
            path: values::absolute(&world.at_home(path)?)?,
            mode: 0,
            owner: (None, None),
        });
    }
    let form = || "expected unix:///PATH or tcp://HOST:PORT, with an IPv4 address or localhost as the host".to_owned();
    let (host, port) = text
        .strip_prefix("tcp://")
        .and_then(|rest| rest.rsplit_once(':'))
        .ok_or_else(form)?;
    let host = if host.eq_ignore_ascii_case("localhost") {
        "127.0.0.1"
    } else {
        host
    };
    let address: std::net::Ipv4Addr = host.parse().map_err(|_| form())?;
    let port: u16 = port.parse().map_err(|_| form())?;
    Ok(FcgiPlace::Inet((address, port).into()))
}

/// Parses `USER` or `USER:GROUP`.
fn owner(text: &str, world: &World) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(world.accounts.find_group(group)?)),
        None => (text, None),
    };
    Ok((Some(world.accounts.find(user)?.uid), group))
}

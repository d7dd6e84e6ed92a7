//! `[unix_http_server]` and `[inet_http_server]`: where supervisorctl reaches the taskmaster.
//!
//! ```text
//! [unix_http_server]   file, chmod (0700), chown (user:group), username, password
//! [inet_http_server]   port (PORT, HOST:PORT or *:PORT), username, password
//! ```
//!
//! A port without a host means the loopback address alone, because a server without a password on all addresses hands
//! the machine over. supervisord listens on all addresses. `*:PORT` asks for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::expand::Scope;
use super::keys::Keys;
use super::problem::Findings;
use super::raw::Section;
use super::values;
use super::world::World;

const UNIX_KEYS: &[&str] = &["file", "chmod", "chown", "username", "password"];
const INET_KEYS: &[&str] = &["port", "username", "password"];

/// The length of the longest path of a socket (unix(7)).
const LONGEST_PATH: usize = 107;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: Address,
    /// The name and the password that a client needs. `None` means that every client is served.
    pub login: Option<Login>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket in the file system.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its user and its group, if they are changed.
        owner: (Option<u32>, Option<u32>),
    },
    /// A TCP port.
    Inet(SocketAddr),
}

/// A name and a password. A password that begins with `{SHA}` is the SHA-1 digest of the real one in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Without the password.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// The value of `SUPERVISOR_SERVER_URL`.
    pub fn url(&self) -> String {
        match &self.address {
            Address::Unix { path, .. } => format!("unix://{}", path.display()),
            Address::Inet(address) if address.ip().is_unspecified() => format!("http://localhost:{}", address.port()),
            Address::Inet(address) => format!("http://{address}"),
        }
    }

    /// Reads a `[unix_http_server]`.
    pub fn unix(section: &Section, world: &World, scope: &Scope, findings: &mut Findings) -> Option<Server> {
        let mut keys = Keys::new(section, scope, UNIX_KEYS, findings);
        let _required = keys.raw_required("file");
        let path = keys.optional("file", |text| socket_path(text, world));
        let mode = keys.optional("chmod", values::umask).unwrap_or(0o700);
        let owner = keys.optional("chown", |text| owner(text, world)).unwrap_or_default();
        let login = login(&mut keys);
        Some(Server {
            address: Address::Unix {
                path: path?,
                mode,
                owner,
            },
            login,
        })
    }

    /// Reads an `[inet_http_server]`.
    pub fn inet(section: &Section, scope: &Scope, findings: &mut Findings) -> Option<Server> {
        let mut keys = Keys::new(section, scope, INET_KEYS, findings);
        let _required = keys.raw_required("port");
        let address = keys.optional("port", inet_address);
        let login = login(&mut keys);
        if address.is_some_and(|address| !address.ip().is_loopback()) && login.is_none() {
            keys.note(
                "port",
                "every machine that reaches this port controls the taskmaster: set username and password",
            );
        }
        Some(Server {
            address: Address::Inet(address?),
            login,
        })
    }
}

fn socket_path(text: &str, world: &World) -> Result<PathBuf, String> {
    let path = world.absolute(Path::new(&world.at_home(text.trim())?));
    match path.parent() {
        _ if path.as_os_str().len() > LONGEST_PATH => Err(format!("a socket's path has at most {LONGEST_PATH} bytes")),
        Some(parent) if parent.is_dir() && path.file_name().is_some() => Ok(path),
        _ => Err("its directory does not exist".to_owned()),
    }
}

fn owner(text: &str, world: &World) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let uid = world.accounts.find(user.trim())?.uid;
    let gid = group.map(|group| world.accounts.find_group(group.trim())).transpose()?;
    Ok((Some(uid), gid))
}

/// Parses `PORT`, `HOST:PORT` or `*:PORT`.
fn inet_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let port = match port.parse::<u16>() {
        Ok(port @ 1..) => port,
        _ => return Err("expected a port from 1 to 65535, alone or after HOST:".to_owned()),
    };
    let ip: IpAddr = match host {
        "" | "localhost" => Ipv4Addr::LOCALHOST.into(),
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        _ => match host.trim_matches(['[', ']']).parse::<Ipv6Addr>() {
            Ok(ip) => ip.into(),
            Err(_) => return resolved(host, port),
        },
    };
    Ok(SocketAddr::new(ip, port))
}

fn resolved(host: &str, port: u16) -> Result<SocketAddr, String> {
    let unknown = |_| format!("the host {host:?} is not known");
    let mut found = (host, port).to_socket_addrs().map_err(unknown)?;
    found.next().ok_or_else(|| format!("the host {host:?} has no address"))
}

/// Reads the name and the password. No message contains a part of the password.
fn login(keys: &mut Keys<'_>) -> Option<Login> {
    let username = keys.optional("username", |text| Ok(text.to_owned()));
    let password = keys.raw("password").map(|raw| keys.scope.expand(raw));
    match (username, password) {
        (None, None) => None,
        (Some(username), Some(Ok(password))) if !username.contains(':') => Some(Login { username, password }),
        (Some(_), Some(Ok(_))) => {
            keys.complain("username", "must not contain a colon");
            None
        }
        (_, Some(Err(message))) => {
            keys.complain_of_secret("password", &values::discreet(&message));
            None
        }
        (Some(_), None) => {
            keys.complain("username", "needs a password");
            None
        }
        (None, Some(Ok(_))) => {
            keys.complain_of_secret("password", "needs a username");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, problems};
    use super::*;

    #[test]
    fn servers_have_addresses_and_logins() {
        let servers = config(
            "[supervisord]\n[unix_http_server]\nfile=/tmp/s.sock\nchmod=0770\nchown=ann\n[inet_http_server]\n\
             port=9001\nusername=u\npassword={SHA}aa\n",
        )
        .supervisord
        .servers;
        let unix = Address::Unix {
            path: "/tmp/s.sock".into(),
            mode: 0o770,
            owner: (Some(1000), None),
        };
        assert_eq!(servers[0].address, unix);
        assert_eq!(
            (servers[0].login.clone(), servers[0].url()),
            (None, "unix:///tmp/s.sock".to_owned())
        );
        assert_eq!(servers[1].url(), "http://127.0.0.1:9001");
        assert_eq!(servers[1].login.as_ref().unwrap().password, "{SHA}aa");
        assert!(!format!("{servers:?}").contains("SHA"));
    }

    #[test]
    fn a_port_is_on_the_loopback_address_unless_told_otherwise() {
        for (text, address) in [
            ("9001", "127.0.0.1:9001"),
            (":9001", "127.0.0.1:9001"),
            ("localhost:9001", "127.0.0.1:9001"),
            ("*:9001", "0.0.0.0:9001"),
            ("127.0.0.2:9001", "127.0.0.2:9001"),
            ("[::1]:9001", "[::1]:9001"),
        ] {
            assert_eq!(inet_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["", "0", "65536", "x", "localhost:", "*"] {
            assert!(inet_address(text).is_err(), "{text}");
        }
        let open = config("[supervisord]\n[inet_http_server]\nport=*:9001\n");
        assert!(open.notes[0].contains("username and password"), "{:?}", open.notes);
    }

    #[test]
    fn a_mistake_in_a_server_names_the_key_and_no_password() {
        for (text, key) in [
            ("[unix_http_server]\nchmod=0700\n", "file"),
            ("[unix_http_server]\nfile=/no/such/s.sock\n", "file"),
            ("[unix_http_server]\nfile=/tmp/s\nchmod=9\n", "chmod"),
            ("[unix_http_server]\nfile=/tmp/s\nchown=no-such-user\n", "chown"),
            ("[inet_http_server]\nport=x\n", "port"),
            ("[inet_http_server]\nport=9001\nusername=u\n", "username"),
            ("[inet_http_server]\nport=9001\npassword=hunter2\n", "password"),
            (
                "[inet_http_server]\nport=9001\nusername=u\npassword=%hunter2\n",
                "password",
            ),
        ] {
            let found = problems(&format!("[supervisord]\n{text}"));
            assert!(found.len() == 1 && found[0].contains(key), "{text}: {found:?}");
            assert!(!found[0].contains("hunter2"), "{found:?}");
        }
    }
}

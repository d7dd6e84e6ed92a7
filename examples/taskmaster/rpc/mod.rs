//! supervisord's XML-RPC interface, as supervisorctl and dashboards call it.
//!
//! `value` has the values and their XML, `fault` the fault codes, `remote` what the calls work on, `methods` the
//! methods, and `later` the answers that wait for a process. A call never waits in the loop: an answer that is not
//! known yet is asked for again after each turn, while others are served.

use std::collections::VecDeque;

use crate::config::Channel;
use crate::herd::{Herd, Named};
use crate::own_log::OwnLog;

mod fault;
mod later;
mod logs;
mod methods;
mod remote;
mod value;

pub use fault::Fault;
pub use later::{Answer, Later};
pub use logs::end as log_end;
pub use remote::{Remote, Wishes};
pub use value::{Value, call, reply};

/// Carries out a call with these parameters.
///
/// # Errors
/// The fault for the client.
pub fn perform(remote: &mut Remote<'_>, method: &str, params: &[Value]) -> Result<Answer, Fault> {
    match method.split_once('.') {
        Some(("supervisor", name)) => {
            if remote.herd.is_closing() && name != "getState" {
                return Err(Fault::shutdown_state(""));
            }
            methods::supervisor(remote, name, params)
        }
        Some(("system", name)) => system(remote, name, params),
        _ => Err(Fault::unknown_method("")),
    }
}

fn system(remote: &mut Remote<'_>, name: &str, params: &[Value]) -> Result<Answer, Fault> {
    let known = |name: &str| methods::ALL.iter().find(|method| method.name == name);
    let unknown = || Fault::signature_unsupported("");
    match (name, params) {
        ("listMethods", []) => {
            let names = methods::ALL.iter().map(|method| Value::from(method.name));
            Ok(Value::Array(names.collect()).into())
        }
        ("methodHelp", [Value::Text(name)]) => Ok(Value::from(known(name).ok_or_else(unknown)?.help).into()),
        ("methodSignature", [Value::Text(name)]) => {
            let types = known(name).ok_or_else(unknown)?.types.split(' ');
            Ok(Value::Array(types.map(Value::from).collect()).into())
        }
        ("multicall", [Value::Array(calls)]) => {
            let calls = VecDeque::from(calls.clone());
            Later::calls(calls, perform).into_answer(remote)
        }
        ("listMethods" | "methodHelp" | "methodSignature" | "multicall", _) => Err(Fault::incorrect_parameters("")),
        _ => Err(Fault::unknown_method("")),
    }
}

/// The log file that a path of the server names: `/logtail/NAME`, `/logtail/NAME/CHANNEL` or `/mainlogtail`.
pub fn log_at(herd: &Herd, own_log: Option<&OwnLog>, path: &str) -> Option<std::path::PathBuf> {
    if path.starts_with("/mainlogtail") {
        return own_log.map(|log| log.path().to_owned());
    }
    let rest = path.strip_prefix("/logtail/")?;
    let (name, channel) = match rest.split_once('/') {
        None | Some((_, "" | "stdout")) => (rest.split('/').next()?, Channel::Out),
        Some((name, "stderr")) => (name, Channel::Err),
        Some(_) => return None,
    };
    let Some(Named::Process(id)) = herd.find(name) else {
        return None;
    };
    let [out, err] = herd.info(id)?.logs;
    let log = match channel {
        Channel::Out => out,
        Channel::Err => err,
    };
    log.filter(|log| log.exists())
}

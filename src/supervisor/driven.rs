//! What a supervisor has on any kernel: an engine, and what surrounds each call to it.

use std::io;

use crate::engine::core::Engine;
use crate::engine::error::Error;
use crate::engine::kernel::Kernel;
use crate::engine::progress::Progress;
use crate::engine::spec::GroupSpec;
use crate::owner::OtherProcess;

/// An engine, and what surrounds each call to it.
pub(crate) trait Driven {
    type Kernel: Kernel;

    fn engine(&self) -> &Engine<Self::Kernel>;
    fn engine_mut(&mut self) -> &mut Engine<Self::Kernel>;

    /// Whether the calling process may use it.
    fn check_owner(&self) -> Result<(), OtherProcess>;

    /// Makes the notify socket.
    fn listen(&mut self) -> Result<(), Error>;

    /// Makes room in the stored state, if there is one, for this many new instances.
    fn reserve_state(&mut self, _instances: u32, _spec: Option<&GroupSpec>) -> Result<(), Error> {
        Ok(())
    }

    /// Whether the group needs the notify socket and there is none yet. The first group that needs it makes it.
    fn lacks_socket(&self, spec: &GroupSpec) -> bool {
        spec.notify.socket && self.engine().socket.is_none()
    }

    /// Runs a command: reads the clock once at the beginning, and arms the timer at the end.
    fn call<T>(&mut self, act: impl FnOnce(&mut Engine<Self::Kernel>) -> Result<T, Error>) -> Result<T, Error> {
        self.check_owner()?;
        let engine = self.engine_mut();
        engine.wake();
        let result = act(engine);
        engine.settle(None)?;
        result
    }

    /// Does the same as `call`, for the calls of the host's loop.
    fn turn(&mut self, act: impl FnOnce(&mut Engine<Self::Kernel>) -> io::Result<Progress>) -> Result<Progress, Error> {
        self.check_owner()?;
        let engine = self.engine_mut();
        engine.wake();
        let result = act(engine);
        let progress = *result.as_ref().unwrap_or(&Progress::Done);
        engine.settle(Some(progress))?;
        Ok(result?)
    }
}

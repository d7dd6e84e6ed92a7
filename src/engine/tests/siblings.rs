//! Siblings that are told of an end in several turns.

use super::kernel::TestKernel;
use super::{SECOND, end, engine, instance, member, pass, spec, started, state};
use crate::engine::ids::{InstanceId, Target};
use crate::engine::kernel::Kernel;
use crate::engine::request::Request;
use crate::exit::Exit;
use crate::lifecycle::{Joint, StateName, Strategy};

#[test]
fn a_request_for_the_ended_one_comes_after_all_siblings_are_told() {
    for request in [Request::Start, Request::Restart, Request::Stop, Request::Kill] {
        let mut engine = engine();
        let many = spec("x")
            .instances(TestKernel::SLICE + 10)
            .strategy(Strategy::OneForAll);
        let group = started(&mut engine, many);
        pass(&mut engine, SECOND * 2);
        let siblings: Vec<InstanceId> = (1..TestKernel::SLICE + 10)
            .map(|number| member(&engine, group, number))
            .collect();
        let ended = member(&engine, group, 0);
        end(&mut engine, ended, Exit::Code(1));
        let is_untold = |engine: &super::TestEngine| {
            let untold = siblings.iter().filter(|&&id| state(engine, id) == StateName::Running);
            untold.count()
        };
        assert_eq!(is_untold(&engine), 9);
        assert_eq!(instance(&engine, ended).life.joint(), Joint::Tells);
        engine.request(Target::Instance(ended), request).unwrap();
        assert_eq!(is_untold(&engine), 0, "{request:?}");
        assert!(engine.telling.is_empty());
    }
}

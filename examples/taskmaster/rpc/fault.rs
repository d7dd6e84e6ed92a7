//! supervisord's fault codes.

/// The reason why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// supervisord's number.
    pub code: i32,
    /// The text for people.
    pub text: String,
}

macro_rules! faults {
    ($($name:ident $code:literal $text:literal)*) => {
        impl Fault {
            $(
                #[doc = concat!("The fault ", $text, ".")]
                pub fn $name(about: impl std::fmt::Display) -> Fault {
                    Fault::new($code, $text, &about.to_string())
                }
            )*
        }
    };
}

faults! {
    unknown_method 1 "UNKNOWN_METHOD"
    incorrect_parameters 2 "INCORRECT_PARAMETERS"
    bad_arguments 3 "BAD_ARGUMENTS"
    signature_unsupported 4 "SIGNATURE_UNSUPPORTED"
    shutdown_state 6 "SHUTDOWN_STATE"
    bad_name 10 "BAD_NAME"
    bad_signal 11 "BAD_SIGNAL"
    no_file 20 "NO_FILE"
    not_executable 21 "NOT_EXECUTABLE"
    failed 30 "FAILED"
    abnormal_termination 40 "ABNORMAL_TERMINATION"
    spawn_error 50 "SPAWN_ERROR"
    already_started 60 "ALREADY_STARTED"
    not_running 70 "NOT_RUNNING"
    already_added 90 "ALREADY_ADDED"
    still_running 91 "STILL_RUNNING"
    cant_reread 92 "CANT_REREAD"
}

/// The code of a success in a list of results.
pub const SUCCESS: i32 = 80;

impl Fault {
    fn new(code: i32, name: &str, about: &str) -> Fault {
        let text = match about {
            "" => name.to_owned(),
            about => format!("{name}: {about}"),
        };
        Fault { code, text }
    }
}

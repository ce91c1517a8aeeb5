//! What can go wrong when a laboratory is built.

use std::io;

use towpath_sim::Class;

use crate::classify::Behaviour;

/// Why a laboratory is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The system refused something.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed on\n{input}\nand said: {said}")]
    Program {
        /// The program, with its arguments.
        program: String,
        /// What it was given to read.
        input: String,
        /// What it wrote to its standard error.
        said: String,
    },
    /// A setting of the kernel is not what was written to it.
    #[error("{path} is {found:?} after {written:?} was written to it")]
    Setting {
        /// The file below `/proc/sys`.
        path: String,
        /// What was written.
        written: String,
        /// What is read.
        found: String,
    },
    /// No packet comes through where packets must.
    #[error("no packet comes through from {from} to {to}")]
    Silent {
        /// The sender.
        from: String,
        /// The receiver.
        to: String,
    },
    /// A NAT does not behave as its class does.
    #[error("a NAT of class {class} must behave as {expected:?}, and behaves as {found:?}")]
    Misclassified {
        /// The class that was asked for.
        class: Class,
        /// How NATs of the class behave.
        expected: Behaviour,
        /// How this one was seen to behave.
        found: Behaviour,
    },
    /// A laboratory has as many NATs and servers, or a LAN has had as many hosts, as there are addresses for.
    #[error("there are addresses for {most} NATs and servers, and for as many hosts in a LAN")]
    Full {
        /// The bound.
        most: u8,
    },
}

impl LabError {
    /// A function that makes the error of an action from what the system says.
    pub(crate) fn of(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

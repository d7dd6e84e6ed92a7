//! The taskmaster example as other programs see it: its command line is a contract.

mod driver;

//! One module per subcommand.

pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod coordinator;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod generate;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod rank;
pub(crate) mod serve;
pub(crate) mod worker;
pub(crate) mod workers;

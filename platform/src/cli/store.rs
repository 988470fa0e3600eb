//! The subcommands of `store`.

use clap::Subcommand;

use crate::secret::Secret;

const END: &str = "\
a store as in store.url (sqlite:PATH, file:DIR, mongodb://...,
postgres://...), or the word store.url: the configured one";

/// What is done with the documents of a store.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum StoreCommand {
    /// Copy all documents of a store to another one, and compare both.
    ///
    /// Nobody may write to TO meanwhile. A copy that was stopped goes on where it was when it is started again.
    Copy {
        /// Where the documents are.
        #[arg(value_parser = super::secret, value_name = "FROM", help = format!("From here: {END}"))]
        from: Secret,
        /// Where they go.
        #[arg(value_parser = super::secret, value_name = "TO", help = format!("To here: {END}"))]
        to: Secret,
        /// In the collections of FROM, replace what differs in TO and delete what only TO has
        #[arg(long)]
        overwrite: bool,
    },
    /// Bring the documents of the configured store into the present shape
    ///
    /// Runs the steps of `Entity::MIGRATIONS` that have not run yet, one process at a time. The server may run meanwhile.
    Migrate,
}

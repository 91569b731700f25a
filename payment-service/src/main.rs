//! `payment-service`: one replica of Payments Service.

use clap::{Parser, Subcommand};

/// Payments Service: accounts, their ledger, and exactly one payment decision per order.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the subgraph's SDL.
    Schema,
}

#[expect(clippy::print_stdout, reason = "the SDL is what was asked for")]
fn main() {
    match Cli::parse().command {
        Command::Schema => print!("{}", payment_service::graphql::sdl()),
    }
}

//! `order-service`: one replica of Order Service.

mod config;

use std::process::ExitCode;

use clap::Parser as _;

use self::config::{Cli, Command, RunArgs};

/// For an error that has a text for people.
type Failure = Box<dyn std::error::Error>;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "one clear line is what a person needs")]
async fn main() -> ExitCode {
    match dispatch(Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("order-service: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for, and nothing else")]
async fn dispatch(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Run(args) => run(&args).await?,
        Command::Migrate(args) => order_service::app::migrate(&args.url()?).await?,
        Command::Token(args) => println!("{}", args.sign()?),
        Command::Schema { public: false } => println!("{}", order_service::graphql::sdl().trim_end()),
        Command::Schema { public: true } => println!("{}", order_service::endpoint::public_sdl()?.trim_end()),
    }
    Ok(())
}

async fn run(args: &RunArgs) -> Result<(), Failure> {
    args.listen()?;
    args.settings()?;
    args.auth.verifier().await?;
    args.broker.kafka_brokers()?;
    Err("Kafka support is not in this build yet, and without a broker Order Service cannot run alone; `tandem` runs both services in one \
         process"
        .into())
}

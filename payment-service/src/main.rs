//! `payment-service`: one replica of Payments Service.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a command answers goes to stdout, why it failed to stderr")]

mod config;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser as _;
use payment_service::{PaymentService, graphql, migrate};
use runtime::{
    lifecycle::Shutdown,
    metrics::Metrics,
    telemetry::{self, LogFormat},
};

use config::{Cli, Command, RunArgs};

/// How long the replica may take to finish what it has, after the notice: together below the 10 s after which Docker kills.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(6);

/// Of `LISTEN`.
const DEFAULT_PORT: u16 = 8001;

#[tokio::main]
async fn main() -> ExitCode {
    // Dropped last: what was logged on the way out is still written.
    let _telemetry = match telemetry::init(LogFormat::Auto) {
        Ok(guard) => guard,
        Err(error) => return failed(&error),
    };
    match dispatch(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&*error),
    }
}

fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("payment-service: {error}");
    ExitCode::FAILURE
}

async fn dispatch(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Run(args) => run(*args).await,
        Command::Migrate(args) => Ok(migrate(&args.url()?).await?),
        Command::Token(args) => {
            println!("{}", args.sign()?);
            Ok(())
        }
        Command::Healthcheck(args) => Ok(args.ask(DEFAULT_PORT).await?),
        Command::Schema => {
            print!("{}", graphql::sdl());
            Ok(())
        }
    }
}

async fn run(args: RunArgs) -> Result<(), Box<dyn Error>> {
    let mut settings = args.settings()?;
    let verifier = args.auth.verifier().await?;
    let broker = args.broker.broker("payment-service")?;
    settings.metrics = Some(Metrics::install()?);
    // Secrets are redacted by the settings themselves.
    tracing::info!(settings = ?args, "starting");
    let shutdown = Shutdown::new(settings.drain_notice + SHUTDOWN_GRACE);
    shutdown.on_signals()?;

    let starting = PaymentService::start(settings, broker, verifier);
    let Some(service) = shutdown.soft().run_until_cancelled(starting).await.transpose()? else {
        return Ok(());
    };
    let soft = shutdown.soft().clone();
    shutdown.spawn(async move {
        soft.cancelled().await;
        service.stop().await;
    });
    shutdown.finished().await;
    Ok(())
}

//! `order-service`: one replica of Order Service.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what a command answers goes to stdout, why it failed to stderr")]

mod config;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser as _;
use order_service::{
    app::{OrderService, migrate},
    endpoint, graphql,
};
use runtime::{
    lifecycle::Shutdown,
    metrics::Metrics,
    serve,
    telemetry::{self, LogFormat},
};

use config::{Cli, Command, RunArgs};

/// How long the replica may take to finish what it has, after the notice: together below the 10 s after which Docker kills.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(6);

/// Of `LISTEN`.
const DEFAULT_PORT: u16 = 8000;

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
    eprintln!("order-service: {error}");
    ExitCode::FAILURE
}

async fn dispatch(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Run(args) => run(&args).await?,
        Command::Migrate(args) => migrate(&args.url()?).await?,
        Command::Token(args) => println!("{}", args.sign()?),
        Command::Healthcheck(args) => args.ask(DEFAULT_PORT).await?,
        Command::Schema { public: false } => println!("{}", graphql::sdl().trim_end()),
        Command::Schema { public: true } => println!("{}", endpoint::public_sdl()?.trim_end()),
    }
    Ok(())
}

async fn run(args: &RunArgs) -> Result<(), Box<dyn Error>> {
    let (mut settings, listen) = (args.settings()?, args.listen()?);
    let verifier = args.auth.verifier().await?;
    let broker = args.broker.broker("order-service")?;
    settings.metrics = Some(Metrics::install()?);
    // Secrets are redacted by the settings themselves.
    tracing::info!(settings = ?args, "starting");
    let shutdown = Shutdown::new(settings.drain_notice + SHUTDOWN_GRACE);
    shutdown.on_signals()?;

    let listener = serve::bind(&listen).await.map_err(|error| format!("LISTEN: {error}"))?;
    let starting = OrderService::start(settings, broker, verifier, listener);
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

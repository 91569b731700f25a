//! `order-service`: one replica of Order Service.

#![expect(clippy::print_stdout, reason = "what was asked for, and nothing else")]

mod config;

use std::{error::Error, process::ExitCode, time::Duration};

use order_service::{
    app::{OrderService, migrate},
    endpoint, graphql,
};
use runtime::{lifecycle::Shutdown, metrics::Metrics, program, serve};

use config::{Cli, Command, RunArgs};

/// How long the replica may take to finish what it has, after the notice: together below the 10 s after which Docker kills.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(6);

/// Of `LISTEN`.
const DEFAULT_PORT: u16 = 8000;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = program::arguments::<Cli>().command;
    let traces = command.traces();
    program::report("order-service", traces, dispatch(command)).await
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
    let grace = settings.drain_notice + SHUTDOWN_GRACE;
    // Boxed, because a start holds a lot at once and would be a part of every future around it.
    let starting = Box::pin(async {
        let verifier = args.auth.verifier().await?;
        let broker = args.broker.broker("order-service")?;
        settings.metrics = Some(Metrics::install()?);
        // Secrets are redacted by the settings themselves.
        tracing::info!(settings = ?args, "starting");
        let listener = serve::bind(&listen).await.map_err(|error| format!("LISTEN: {error}"))?;
        Ok::<_, Box<dyn Error>>(OrderService::start(settings, broker, verifier, listener).await?)
    });
    program::until_over(&Shutdown::by_signals(grace)?, starting, OrderService::death, OrderService::stop).await
}

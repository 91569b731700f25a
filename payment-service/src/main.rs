//! `payment-service`: one replica of Payments Service.

#![expect(clippy::print_stdout, reason = "what was asked for, and nothing else")]

mod config;

use std::{error::Error, process::ExitCode, time::Duration};

use payment_service::{
    PaymentService, audit,
    audit::{AuditReport, MAX_LISTED},
    graphql, migrate,
};
use runtime::{lifecycle::Shutdown, metrics::Metrics, program};

use config::{Cli, Command, RunArgs};

/// How long the replica may take to finish what it has, after the notice: together below the 10 s after which Docker kills.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(6);

/// Of `LISTEN`.
const DEFAULT_PORT: u16 = 8001;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let command = program::arguments::<Cli>().command;
    let traces = command.traces();
    program::report("payment-service", traces, dispatch(command)).await
}

async fn dispatch(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Run(args) => run(&args).await?,
        Command::Migrate(args) => migrate(&args.url()?).await?,
        Command::Audit(args) => tell(&audit(&args.url()?).await?)?,
        Command::Token(args) => println!("{}", args.sign()?),
        Command::Healthcheck(args) => args.ask(DEFAULT_PORT).await?,
        Command::Schema => print!("{}", graphql::sdl()),
    }
    Ok(())
}

fn tell(report: &AuditReport) -> Result<(), String> {
    let AuditReport { accounts, entries, paid, rejected, differences } = report;
    println!("{accounts} accounts, {entries} ledger entries, {paid} paid and {rejected} rejected orders");
    for difference in differences {
        println!("{difference}");
    }
    if report.is_clean() {
        println!("everything adds up");
        return Ok(());
    }
    Err(format!("{} differences, at most {MAX_LISTED} of each kind", differences.len()))
}

async fn run(args: &RunArgs) -> Result<(), Box<dyn Error>> {
    let mut settings = args.settings()?;
    let grace = settings.drain_notice + SHUTDOWN_GRACE;
    // Boxed, because a start holds a lot at once and would be a part of every future around it.
    let starting = Box::pin(async {
        let verifier = args.auth.verifier().await?;
        let broker = args.broker.broker("payment-service")?;
        settings.metrics = Some(Metrics::install()?);
        // Secrets are redacted by the settings themselves.
        tracing::info!(settings = ?args, "starting");
        Ok::<_, Box<dyn Error>>(PaymentService::start(settings, broker, verifier).await?)
    });
    program::until_over(&Shutdown::by_signals(grace)?, starting, PaymentService::death, PaymentService::stop).await
}

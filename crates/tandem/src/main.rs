//! `tandem`: everything in one process, and the tools that prove it.

mod cli;

use std::{process::ExitCode, time::Duration};

use runtime::{lifecycle::Shutdown, program, telemetry};
use tandem::{
    embedded::{self, Graphiql, Tandem},
    prove::prove,
};

use self::cli::{BenchArgs, Cli, Command, ProveArgs, RunArgs, TokenArgs};

/// For an error that has a text for people.
type Failure = Box<dyn std::error::Error>;

/// For both services to finish what they have: below the 10 s after which orchestrators kill.
const GRACE: Duration = Duration::from_secs(8);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
#[expect(clippy::print_stderr, reason = "one clear line is what a person needs")]
async fn main() -> ExitCode {
    let cli: Cli = program::arguments();
    let result = match cli.command {
        None => run(cli.run).await,
        Some(Command::Run(args)) => run(args).await,
        Some(Command::Token(args)) => token(&args),
        Some(Command::Prove(args)) => return run_prove(&args).await,
        #[cfg(feature = "kafka")]
        Some(Command::Bench(args)) => cluster_bench(&args).await,
        #[cfg(not(feature = "kafka"))]
        Some(Command::Bench(args)) => bench(&args).await,
        #[cfg(feature = "kafka")]
        Some(Command::BenchReplica(args)) => bench_replica(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tandem: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: RunArgs) -> Result<(), Failure> {
    let _telemetry = telemetry::init(None)?;
    // Boxed, because a start holds a lot at once and would be a part of every future around it.
    let starting = Box::pin(async {
        let tandem = Tandem::start(args.settings()?).await?;
        greet(&tandem);
        Ok::<_, Failure>(tandem)
    });
    program::until_over(&Shutdown::by_signals(GRACE)?, starting, Tandem::death, Tandem::stop).await
}

#[expect(clippy::print_stdout, reason = "for people, and for programs that read the first lines")]
fn greet(tandem: &Tandem) {
    let (url, token) = (tandem.url(), tandem.demo_token());
    let graphiql = match tandem.graphiql() {
        Some(Graphiql::SignedIn) => format!("{url}/graphiql   (signed in as \"{}\")", embedded::DEMO_USER),
        Some(Graphiql::Anonymous) => format!("{url}/graphiql   (open to others too, so without a token of its own)"),
        None => "switched off".to_owned(),
    };
    println!(
        "
  Tandem is running. Orders are paid exactly once, and seen happening live.

    GraphiQL   {graphiql}
    GraphQL    {url}/graphql
    Start page {url}/

  Token of \"{user}\", good for a day:

    {token}

  Try it:

    curl -s {url}/graphql \\
      -H 'authorization: Bearer {token}' \\
      -H 'content-type: application/json' \\
      -d '{{\"query\":\"{{ me {{ id account {{ balance {{ amount currencyCode }} }} orders {{ nodes {{ number status }} }} }} }}\"}}'

  Ctrl-C stops it; the data stays.
",
        user = embedded::DEMO_USER,
    );
}

#[expect(clippy::print_stdout, reason = "the token, and nothing else")]
fn token(args: &TokenArgs) -> Result<(), Failure> {
    println!("{}", args.sign()?);
    Ok(())
}

#[cfg(feature = "kafka")]
#[expect(clippy::print_stdout, reason = "the figures are for people")]
async fn cluster_bench(args: &BenchArgs) -> Result<(), Failure> {
    let _telemetry = telemetry::init(None)?;
    let options = args.options();
    let folder = options.output.clone();
    let report = tandem::bench::run(options).await?;
    report.write(&folder)?;
    println!("{report}\nFor programs: {folder}/bench.json. As a picture: {folder}/bench.svg.", folder = folder.display());
    if report.failed.is_empty() { Ok(()) } else { Err(format!("{} figures could not be measured", report.failed.len()).into()) }
}

#[cfg(feature = "kafka")]
async fn bench_replica(args: cli::ReplicaArgs) -> Result<(), Failure> {
    use tandem::bench::stage::replica::{run_orders, run_payments};
    let _telemetry = telemetry::init(None)?;
    match args.service.as_str() {
        "orders" => run_orders(args.settings()).await?,
        _ => run_payments(args.settings()).await?,
    }
    Ok(())
}

#[cfg(not(feature = "kafka"))]
#[expect(clippy::print_stdout, reason = "the figure is for people")]
async fn bench(args: &BenchArgs) -> Result<(), Failure> {
    use indicatif::ProgressBar;
    use tandem::bench::latency::measure;
    let bar = ProgressBar::new(u64::from(args.orders));
    let latency = measure(u64::from(args.orders), &bar).await?;
    bar.finish_and_clear();
    println!("{latency}");
    Ok(())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the verdict is for people")]
async fn run_prove(args: &ProveArgs) -> ExitCode {
    let verdict = match args.options() {
        Ok((options, _folder)) => prove(&options).await.map_err(Failure::from),
        Err(error) => Err(error.into()),
    };
    match verdict {
        Ok(verdict) if verdict.is_clean() => {
            println!("\n{verdict}\n  Nothing lost, nothing doubled, every cent accounted for.");
            ExitCode::SUCCESS
        }
        Ok(verdict) => {
            println!("\n{verdict}\n  This must not happen. Please report it.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tandem prove: {error}");
            ExitCode::FAILURE
        }
    }
}

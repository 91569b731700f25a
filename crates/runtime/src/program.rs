//! From a command to an exit code, and a service from its start to its end: what every program does the same way.

use std::{env, error::Error, ffi::OsStr, pin::pin, process::ExitCode};

use clap::{Command, Parser, builder::Resettable};
use futures_util::FutureExt as _;

use crate::{lifecycle::Shutdown, settings::SettingError, stage::TaskDied, telemetry, traces::TraceExport};

/// The command line, or the end of the process with what is wrong about it. An empty variable counts as not set, because compose files cannot
/// leave one out.
pub fn arguments<C: Parser>() -> C {
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let matches = without_variables(C::command(), &is_empty).get_matches();
    C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

fn without_variables(command: Command, left_out: &dyn Fn(&OsStr) -> bool) -> Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if left_out(name) => arg.env(Resettable::Reset),
        _ => arg,
    });
    command.mut_subcommands(|subcommand| without_variables(subcommand, left_out))
}

/// Runs a command with logs on stderr and traces as its settings say. A failure is one line on stderr, after the program's name, and a
/// non-zero exit code.
pub async fn report(
    program: &str,
    traces: Result<Option<TraceExport>, SettingError>,
    command: impl Future<Output = Result<(), Box<dyn Error>>>,
) -> ExitCode {
    let traces = match traces {
        Ok(traces) => traces,
        Err(error) => return failed(program, &error),
    };
    // Dropped last: what was logged and traced on the way out is still sent.
    let _telemetry = match telemetry::init(traces.as_ref()) {
        Ok(guard) => guard,
        Err(error) => return failed(program, &error),
    };
    match command.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(program, &*error),
    }
}

#[expect(clippy::print_stderr, reason = "one clear line is what a person needs")]
fn failed(program: &str, error: &(dyn Error + 'static)) -> ExitCode {
    eprintln!("{program}: {error}");
    ExitCode::FAILURE
}

/// Starts a service, and stops it when the shutdown begins, or when one of its tasks has panicked (`death`). A shutdown during the start ends it without a
/// service. Whoever runs a program passes [`Shutdown::by_signals`].
///
/// # Errors
///
/// Why the service did not start, or [`TaskDied`], while it is stopping too.
pub async fn until_over<S, E, Death, Stopped>(
    shutdown: &Shutdown,
    starting: impl Future<Output = Result<S, E>>,
    death: impl FnOnce(&S) -> Death,
    stop: impl FnOnce(S) -> Stopped,
) -> Result<(), Box<dyn Error>>
where
    E: Into<Box<dyn Error>>,
    Death: Future<Output = TaskDied>,
    Stopped: Future<Output = ()> + Send + 'static,
{
    let Some(started) = shutdown.soft().run_until_cancelled(starting).await else { return Ok(()) };
    let service = started.map_err(Into::into)?;
    let mut death = pin!(death(&service));
    let died = shutdown.soft().run_until_cancelled(&mut death).await;
    shutdown.begin("a task has died");
    shutdown.spawn(stop(service));
    shutdown.finished().await;
    match died.or_else(|| death.now_or_never()) {
        Some(died) => Err(died.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Arg;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::stage::{Stage, Supervisor};

    #[tokio::test]
    async fn a_service_that_lost_a_task_is_stopped_and_the_program_fails() {
        let supervisor = Supervisor::default();
        let (stage, stopped) = (supervisor.stage(), CancellationToken::new());
        let stopping = stopped.clone();
        let starting = async {
            stage.spawn("unlucky", async { panic!("seen in the log of this test") });
            Ok::<_, SettingError>(stage)
        };
        let stop = |stage: Stage| async move {
            stage.stop().await;
            stopping.cancel();
        };
        let ended = until_over(&Shutdown::new(Duration::from_secs(5)), starting, |_: &Stage| supervisor.death(), stop).await;
        assert!(ended.unwrap_err().to_string().contains("\"unlucky\""));
        assert!(stopped.is_cancelled());
    }

    /// What it had in hand may not have been finished.
    #[tokio::test]
    async fn a_service_that_loses_a_task_while_it_stops_fails_too() {
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let supervisor = Supervisor::default();
        let stage = supervisor.stage();
        let token = stage.token();
        stage.spawn("unlucky", async move {
            token.cancelled().await;
            panic!("seen in the log of this test");
        });
        let starting = async {
            shutdown.begin("a signal");
            Ok::<_, SettingError>(stage)
        };
        let ended =
            until_over(&shutdown, starting, |_: &Stage| supervisor.death(), |stage| async move { stage.stop().await }).await;
        assert!(ended.unwrap_err().to_string().contains("\"unlucky\""));
    }

    #[test]
    fn a_variable_that_is_left_out_leaves_the_default() {
        // Of variables that every test has.
        let command = || {
            let inner = Command::new("inner").arg(Arg::new("b").long("b").env("CARGO_PKG_NAME").default_value("default"));
            Command::new("test").arg(Arg::new("a").long("a").env("CARGO_PKG_NAME").default_value("default")).subcommand(inner)
        };
        for (left_out, expected) in [("CARGO_PKG_NAME", "default"), ("CARGO", "runtime")] {
            let matches = without_variables(command(), &|name| name == left_out).get_matches_from(["test", "inner"]);
            let inner = matches.subcommand_matches("inner").unwrap();
            let values = [matches.get_one::<String>("a"), inner.get_one::<String>("b")];
            assert_eq!(values.map(|value| value.unwrap().as_str()), [expected; 2]);
        }
    }
}

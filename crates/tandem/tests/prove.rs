//! The proof that anyone can run, at its full size.

use tandem::prove::{ProveOptions, prove};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_ten_times_under_load_nothing_is_lost_or_doubled() {
    let folder = tempfile::tempdir().unwrap();
    let options = ProveOptions {
        program: env!("CARGO_BIN_EXE_tandem").into(),
        data_dir: folder.path().to_owned(),
        orders: 2_000,
        kills: 10,
        progress: false,
    };
    let verdict = prove(&options).await.unwrap();
    assert!(verdict.is_clean(), "\n{verdict}");
    assert_eq!((verdict.accepted, verdict.found, verdict.kills), (2_000, 2_000, 10));
    assert_eq!(verdict.paid + verdict.rejected, 2_000);
    assert!(verdict.paid > 0 && verdict.rejected > 0, "the load has both outcomes:\n{verdict}");
}

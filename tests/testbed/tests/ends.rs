//! However a test ends, nothing of its world outlives it.
//!
//! The two tests run two worlds at once, each in a process of its own: this
//! program again, told by a variable how to end.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serin_testbed::{Component, Options, World, wait};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const HOW: &str = "TESTBED_ENDS_BY";

#[tokio::test]
async fn a_killed_test_leaves_no_process() {
    let (dir, pids, mut test) = world_that_ends_by("kill").await;
    assert!(pids.iter().all(|pid| alive(*pid)), "{pids:?}");
    test.start_kill().expect("kill it");
    test.wait().await.expect("its end");
    all_end(&pids).await;
    assert!(dir.exists(), "nobody was left to remove it");
    // The next world does.
    let world = World::start(Options {
        quiet: true,
        ..Options::default()
    })
    .await
    .expect("a world");
    assert!(!dir.exists());
    world.shutdown().await;
}

#[tokio::test]
async fn a_panic_ends_the_world_and_keeps_its_logs() {
    let (dir, pids, test) = world_that_ends_by("panic").await;
    let output = test.wait_with_output().await.expect("its end");
    assert!(!output.status.success());
    all_end(&pids).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains(&format!("the logs stay in {}", dir.display())),
        "{said}"
    );
    assert!(dir.join("kube-apiserver.log").exists());
    std::fs::remove_dir_all(&dir).expect("clean up");
}

/// Not a test of its own: what the two tests start.
#[tokio::test]
async fn helper() {
    let Ok(how) = std::env::var(HOW) else { return };
    let world = World::start(Options {
        quiet: true,
        ..Options::default()
    })
    .await
    .expect("a world");
    let pids: Vec<String> = Component::ALL
        .iter()
        .filter_map(|part| Some(world.pid(*part)?.to_string()))
        .collect();
    println!("\nworld {} {}", world.dir().display(), pids.join(" "));
    if how == "panic" {
        panic!("as it was told");
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
}

async fn world_that_ends_by(how: &str) -> (PathBuf, Vec<u32>, tokio::process::Child) {
    let mut test = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "helper", "--nocapture"])
        .env(HOW, how)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("start it");
    let mut lines = BufReader::new(test.stdout.take().expect("its output")).lines();
    while let Some(line) = lines.next_line().await.expect("a line") {
        let Some(world) = line.strip_prefix("world ") else {
            continue;
        };
        let mut words = world.split(' ');
        let dir = words.next().expect("a folder").into();
        let pids: Vec<u32> = words
            .map(|pid| pid.parse().expect("a process id"))
            .collect();
        assert_eq!(pids.len(), Component::ALL.len());
        return (dir, pids, test);
    }
    let output = test.wait_with_output().await.expect("its end");
    panic!(
        "no world came up: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn all_end(pids: &[u32]) {
    wait("the processes to end", Duration::from_secs(5), || async {
        Ok(!pids.iter().any(|pid| alive(*pid)))
    })
    .await
    .expect("none is left");
}

/// Whether a process runs. (One that has ended may wait for its parent.)
fn alive(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status
        .rsplit(") ")
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

//! What the playground shows.

use serin::api::CanaryStatus;
use std::path::Path;
use std::time::Duration;
use testbed::load::Counts;

pub fn progress(part: &str, what: &str) {
    println!("  {part:<12} {what}");
}

pub fn chapter(title: &str, command: &str) {
    println!("\n{title}\n$ {command}\n");
    println!(
        "{:>5}  {:<19} {:<5} {:>6}  {:>9} {:>7}  {:>9} {:>7}  VERDICT",
        "TIME", "PHASE", "STEP", "WEIGHT", "OLD OK", "FAILED", "NEW OK", "FAILED"
    );
}

/// One line: what the operator says, and what the clients have seen of both versions.
pub fn line(at: Duration, status: &CanaryStatus, counts: &Counts, old: &str, new: &str) {
    let of = |version: &str, failed: bool| -> u64 {
        let all = counts.by_version_and_status().into_iter();
        let ours = all.filter(|((seen, status), _)| seen == version && (*status >= 500) == failed);
        ours.map(|(_, count)| count).sum()
    };
    let phase = format!("{:?}", status.phase);
    let verdict = status.verdict.map(|v| format!("{v:?}")).unwrap_or_default();
    println!(
        "{:>4}s  {:<19} {:<5} {:>5}%  {:>9} {:>7}  {:>9} {:>7}  {}",
        at.as_secs(),
        phase,
        status.step.as_deref().unwrap_or("-"),
        status.weight.unwrap_or(0),
        of(old, false),
        of(old, true),
        of(new, false),
        of(new, true),
        verdict,
    );
}

pub fn verdict(what: &str) {
    println!("\n=> {what}");
}

pub fn try_it(kubeconfig: &Path, dir: &Path) {
    println!("\nThe world stays until Ctrl-C. In another terminal:\n");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    println!("  kubectl get canary -n shop -w");
    println!(
        "  kubectl patch canary api -n shop --type=merge -p '{{\"spec\":{{\"target\":{{\"backend\":{{\"name\":\"api-v1\"}}}}}}}}'"
    );
    println!(
        "  kubectl set env deploy/api-v1 -n shop ERROR_RATE=30%      # make a version fail, then release it"
    );
    println!("\nLogs are in {}.", dir.display());
}

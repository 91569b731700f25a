//! What a process costs, as Linux counts it.

use std::fs;

use super::BenchError;

/// Of `/proc/PID/stat`: 100 on every Linux that Rust supports as a target of ours.
const TICKS_PER_SECOND: f64 = 100.0;

/// Memory that the process holds now, in bytes.
///
/// # Errors
/// When the process is gone, or this is no Linux.
pub fn resident_bytes(pid: u32) -> Result<u64, BenchError> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| BenchError::Unexpected(format!("/proc/{pid}/status without VmRSS")))
}

/// Seconds of a core that the process has used so far.
///
/// # Errors
/// As [`resident_bytes`].
pub fn cpu_seconds(pid: u32) -> Result<f64, BenchError> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th fields after it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2)).into_iter().flatten();
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    match ticks[..] {
        [user, system] => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(BenchError::Unexpected(format!("/proc/{pid}/stat is {stat:?}"))),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_its_core() {
        let pid = std::process::id();
        assert!(resident_bytes(pid).unwrap() > 1_000_000);
        assert!(cpu_seconds(pid).unwrap() < 1_000.0);
        assert!(resident_bytes(u32::MAX).is_err());
    }
}

//! What the system says of this process. Linux.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time of all threads so far.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How much of its memory is in use.
pub fn rss_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How many packets the loopback interface has carried: others' too.
pub fn lo_packets() -> u64 {
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let lo = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"));
    lo.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

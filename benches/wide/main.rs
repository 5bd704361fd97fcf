//! What a wide area takes from the library, in virtual time: five voters, round trips of
//! 100 ms, links of 1 Gbit/s, and losses by chance. A client at the leader has one request
//! of 64 bytes outstanding, or 1,024.
//!
//! ```text
//! cargo bench --features sim --bench wide
//! ```
//!
//! Of `k` outstanding a round trip can commit `k` at most: that is the window, and the
//! column `% of k a trip` is the share of it that was committed. `% of no loss` compares
//! that with the line of the same `k` that loses nothing.
//!
//! It ends by itself. How it is simulated: `kontiki::sim::WideArea`. The same seed gives
//! the same figures on any machine.

use std::time::Duration;

use kontiki::sim::WideArea;

const LASTS: Duration = Duration::from_secs(30);

fn main() {
    println!(
        "five voters, {} ms round trips, 1 Gbit/s, {} s of virtual time a line\n\n\
         outstanding   loss   p50, trips   p99, trips   % of k a trip   % of no loss   failed",
        WideArea::ROUND_TRIP.as_millis(),
        LASTS.as_secs()
    );
    let trips = |latency: Duration| latency.as_secs_f64() / WideArea::ROUND_TRIP.as_secs_f64();
    for outstanding in [1, 1024] {
        let mut lossless = None;
        for lost in [0, 10, 100] {
            let seen = WideArea::new(1).lost(lost).outstanding(outstanding).run(LASTS);
            let percent = seen.percent_of_window();
            println!(
                "{outstanding:>11}{:>5} %{:>13.3}{:>13.3}{percent:>16.1}{:>15.1}{:>9}",
                lost / 10,
                trips(seen.latency(50)),
                trips(seen.latency(99)),
                100.0 * percent / *lossless.get_or_insert(percent),
                seen.failed
            );
        }
    }
}

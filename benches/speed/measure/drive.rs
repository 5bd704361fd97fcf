//! Clients that keep so many requests outstanding, and what that comes to.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::process::cpu_time;

/// Who asks one system. An answer means that the value is committed, by that system's
/// own rule, and applied where it was asked.
pub trait Client {
    type Ticket;

    fn send(&mut self) -> Self::Ticket;

    fn wait(&mut self, ticket: Self::Ticket);

    /// Whether it is answered, without waiting.
    fn is_done(&mut self, ticket: &mut Self::Ticket) -> bool;
}

/// What was measured.
#[derive(Debug)]
pub struct Sample {
    latency_ns: Histogram<u64>,
    lasted: Duration,
    cpu: Duration,
}

impl Sample {
    pub fn per_second(&self) -> f64 {
        self.latency_ns.len() as f64 / self.lasted.as_secs_f64()
    }

    pub fn percentile(&self, percent: f64) -> Duration {
        Duration::from_nanos(self.latency_ns.value_at_percentile(percent))
    }

    /// Of the whole process, clients and all nodes.
    pub fn cpu_us_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latency_ns.len() as f64
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3).expect("the bounds are good")
}

/// Keeps `k` requests outstanding for so long, after a fifth of it that does not count.
/// The oldest is waited for; what is answered by then is taken with it, and as many are
/// sent at once.
pub fn closed_loop(client: &mut impl Client, k: usize, seconds: Duration) -> Sample {
    let mut flying = VecDeque::with_capacity(k);
    spend(client, k, seconds / 5, &mut flying, &mut histogram());
    let (mut latency_ns, cpu, began) = (histogram(), cpu_time(), Instant::now());
    spend(client, k, seconds, &mut flying, &mut latency_ns);
    let sample = Sample { latency_ns, lasted: began.elapsed(), cpu: cpu_time() - cpu };
    for (ticket, _) in flying {
        client.wait(ticket);
    }
    sample
}

fn spend<C: Client>(
    client: &mut C,
    k: usize,
    seconds: Duration,
    flying: &mut VecDeque<(C::Ticket, Instant)>,
    latency_ns: &mut Histogram<u64>,
) {
    let end = Instant::now() + seconds;
    loop {
        let now = Instant::now();
        if now >= end {
            return;
        }
        while flying.len() < k {
            flying.push_back((client.send(), now));
        }
        let Some((first, sent)) = flying.pop_front() else { return };
        client.wait(first);
        let now = Instant::now();
        latency_ns.saturating_record((now - sent).as_nanos() as u64);
        while let Some((ticket, sent)) = flying.front_mut()
            && client.is_done(ticket)
        {
            latency_ns.saturating_record((now - *sent).as_nanos() as u64);
            flying.pop_front();
        }
    }
}

/// So many threads that each wait for their own.
pub fn many_threads<C: Client + Send>(clients: Vec<C>, seconds: Duration) -> Sample {
    let (cpu, began) = (cpu_time(), Instant::now());
    let of_each: Vec<Histogram<u64>> = std::thread::scope(|scope| {
        let one = |mut client: C| {
            scope.spawn(move || {
                let mut latency_ns = histogram();
                spend(&mut client, 1, seconds, &mut VecDeque::new(), &mut latency_ns);
                latency_ns
            })
        };
        let threads: Vec<_> = clients.into_iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
    });
    let mut latency_ns = histogram();
    for of_one in of_each {
        latency_ns.add(of_one).expect("the bounds are the same");
    }
    Sample { latency_ns, lasted: began.elapsed(), cpu: cpu_time() - cpu }
}

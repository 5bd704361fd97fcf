//! Real deaths.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;

/// The middle, the 99th of a hundred, the longest.
struct Spread([Duration; 3]);

impl Spread {
    fn of(mut times: Vec<Duration>) -> Spread {
        times.sort();
        let at = |part: f64| times[((times.len() - 1) as f64 * part).ceil() as usize];
        Spread([at(0.5), at(0.99), at(1.0)])
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for time in self.0 {
            write!(f, "{:>8.0}", time.as_secs_f64() * 1_000.0)?;
        }
        Ok(())
    }
}

const HEAD: &str = "                            until one knows         until all know\n\
                    of                       median    99 %   worst  median    99 %   worst";

pub fn table(deaths: usize) -> Result<(), Box<dyn Error>> {
    println!(
        "three voters, one learner, default times; {deaths} deaths each, milliseconds\n{HEAD}"
    );
    for kind in ["a follower", "a learner", "the leader"] {
        let mut times = Vec::new();
        while times.len() < deaths {
            let cluster = Cluster::all_up(3, 1)?;
            // Heartbeats are at another place each time.
            std::thread::sleep(Duration::from_millis(300 + times.len() as u64 * 7 % 31));
            let Some(leader) = cluster.leader().filter(|leader| *leader < 3) else { continue };
            let dead = match kind {
                "a follower" => (leader + 1) % 3,
                "a learner" => 3,
                _ => leader,
            };
            times.push(cluster.death_of(dead)?);
        }
        tell(kind, times);
    }
    println!();
    Ok(())
}

fn tell(kind: &str, times: Vec<(Duration, Duration)>) {
    let (first, all): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    println!("{kind:<24}{}{}", Spread::of(first), Spread::of(all));
}

/// Five voters watch many learners, all of them on this machine.
pub fn among_many(learners: usize, deaths: usize) -> Result<(), Box<dyn Error>> {
    let cluster = Cluster::all_up(5, learners)?;
    std::thread::sleep(Duration::from_secs(2));
    let (cpu, datagrams, since) = (cpu_time()?, datagrams()?, Instant::now());
    std::thread::sleep(Duration::from_secs(5));
    let seconds = since.elapsed().as_secs_f64();
    println!("five voters, {learners} learners, one machine; {deaths} deaths, milliseconds");
    println!(
        "idle: {:.1} % of a core, {:.0} datagrams a second\n{HEAD}",
        (cpu_time()? - cpu).as_secs_f64() / seconds * 100.0,
        (self::datagrams()? - datagrams) as f64 / seconds,
    );
    let times: Vec<_> =
        (0..deaths).map(|death| cluster.death_of(5 + death)).collect::<Result<_, _>>()?;
    tell("a learner", times);
    println!();
    Ok(())
}

/// Of this process.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // Linux says it in hundredths of a second.
    Ok(Duration::from_millis(ticks * 10))
}

/// Of this machine.
fn datagrams() -> Result<u64, Box<dyn Error>> {
    let snmp = fs::read_to_string("/proc/net/snmp")?;
    let udp = snmp.lines().filter(|line| line.starts_with("Udp:")).nth(1).unwrap_or("");
    Ok(udp.split_whitespace().nth(1).unwrap_or("0").parse()?)
}

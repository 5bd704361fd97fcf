//! How soon a death is agreed on, and how often the living are taken for dead.
//!
//! ```text
//! cargo bench --features sim --bench detector                 all of it, some 6 minutes
//! cargo bench --features sim --bench detector -- --quick      a look at it, half a minute
//!   --deaths N    so many deaths of each kind (50)
//!   --hours N     so many hours of virtual time (1)
//!   --learners N  so many learners in the large cluster (100; 0: without it)
//! ```
//!
//! Deaths are real: nodes with threads and sockets on this machine, one of which falls
//! silent. The hours are virtual: whole clusters in one thread, from a seed.

mod cluster;
mod deaths;
mod vigils;

use std::error::Error;
use std::time::Duration;

use lexopt::prelude::*;

struct Wanted {
    deaths: usize,
    hours: Duration,
    learners: usize,
}

fn wanted() -> Result<Wanted, lexopt::Error> {
    let mut wanted = Wanted { deaths: 50, hours: Duration::from_secs(3600), learners: 100 };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            // What cargo says to every bench.
            Long("bench") => {}
            Long("quick") => {
                wanted = Wanted { deaths: 5, hours: Duration::from_secs(300), learners: 20 };
            }
            Long("deaths") => wanted.deaths = args.value()?.parse()?,
            Long("hours") => {
                wanted.hours = Duration::from_secs(3600 * args.value()?.parse::<u64>()?);
            }
            Long("learners") => wanted.learners = args.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(wanted)
}

fn main() -> Result<(), Box<dyn Error>> {
    let Wanted { deaths, hours, learners } = wanted()?;
    deaths::table(deaths)?;
    vigils::table(hours)?;
    if learners > 0 {
        deaths::among_many(learners, deaths.min(20))?;
    }
    Ok(())
}

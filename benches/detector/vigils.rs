//! Virtual hours in which nobody dies.

use std::error::Error;
use std::time::{Duration, Instant};

use kontiki::sim::{OneWay, Vigil};

pub fn table(lasts: Duration) -> Result<(), Box<dyn Error>> {
    let hours = lasts.as_secs_f64() / 3600.0;
    println!(
        "{hours:.1} hours of virtual time in which nobody dies; three voters, one learner\n\
         with                               false verdicts  leaders   took"
    );
    let cases = [
        ("nothing in the way", Vigil::new(1)),
        ("10 % loss", Vigil::new(2).lost(100)),
        ("30 % loss", Vigil::new(3).lost(300)),
        ("a member overloaded eight times", Vigil::new(4).overload(8)),
        ("the same, and 10 % loss", Vigil::new(5).overload(8).lost(100)),
        ("a one-way link of followers", Vigil::new(6).one_way(OneWay::BetweenFollowers)),
        ("a follower its leader cannot hear", Vigil::new(7).one_way(OneWay::ToTheLeader)),
    ];
    for (name, vigil) in cases {
        let since = Instant::now();
        let watched = vigil.run(lasts)?;
        println!(
            "{name:<35}{:>14}{:>9}{:>6.0} s",
            watched.false_verdicts,
            watched.leaders,
            since.elapsed().as_secs_f64()
        );
    }
    println!();
    Ok(())
}

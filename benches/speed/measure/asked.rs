//! What a program is asked to measure.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    Load,
    Threads,
    Queries,
    Failover,
    Idle,
    Mem,
    CatchUp,
    Recovery,
    Growth,
}

impl Test {
    const NAMED: [(Test, &str); 9] = [
        (Test::Load, "load"),
        (Test::Threads, "threads"),
        (Test::Queries, "queries"),
        (Test::Failover, "failover"),
        (Test::Idle, "idle"),
        (Test::Mem, "mem"),
        (Test::CatchUp, "catchup"),
        (Test::Recovery, "recovery"),
        (Test::Growth, "growth"),
    ];

    pub fn name(self) -> &'static str {
        Test::NAMED.iter().find(|(test, _)| *test == self).expect("each has a name").1
    }
}

/// One measurement, or several of a kind.
#[derive(Clone, Debug)]
pub struct Asked {
    pub test: Test,
    /// Which system, where a program has several.
    pub peer: Option<String>,
    pub k: Vec<usize>,
    pub size: Vec<usize>,
    pub seconds: Duration,
    pub nodes: usize,
    pub durable: Option<PathBuf>,
    pub sealed: bool,
    pub entries: u64,
    /// Logs are compacted.
    pub snapshots: bool,
}

impl Asked {
    /// `None`: no `--test` was given.
    pub fn parse(mut args: lexopt::Parser) -> Result<Option<Asked>, lexopt::Error> {
        let mut test = None;
        let (mut k, mut size, mut entries) = (None, None, None);
        let mut asked = Asked {
            test: Test::Load,
            peer: None,
            k: Vec::new(),
            size: Vec::new(),
            seconds: Duration::from_secs(5),
            nodes: 3,
            durable: None,
            sealed: false,
            entries: 0,
            snapshots: false,
        };
        while let Some(arg) = args.next()? {
            match arg {
                // What cargo says to every bench.
                Long("bench") => {}
                Long("test") => test = Some(args.value()?.parse_with(test_named)?),
                Long("peer") => asked.peer = Some(args.value()?.string()?),
                Long("k") => k = Some(args.value()?.parse_with(numbers)?),
                Long("size") => size = Some(args.value()?.parse_with(numbers)?),
                Long("secs") => {
                    asked.seconds = Duration::from_secs_f64(args.value()?.parse()?);
                }
                Long("nodes") => asked.nodes = args.value()?.parse()?,
                Long("durable") => asked.durable = Some(args.value()?.into()),
                Long("sealed") => asked.sealed = true,
                Long("entries") => entries = Some(args.value()?.parse()?),
                Long("snapshots") => asked.snapshots = true,
                other => return Err(other.unexpected()),
            }
        }
        let Some(test) = test else { return Ok(None) };
        asked.test = test;
        asked.k = k.unwrap_or(match test {
            Test::Threads => vec![64],
            _ => vec![1, 64, 1_024, 16_384],
        });
        // As many as are kept: a log of 64 MB is compacted, whatever is said.
        asked.size = size.unwrap_or(match test {
            Test::Recovery | Test::Growth => vec![32],
            _ => vec![64],
        });
        asked.entries = entries.unwrap_or(match test {
            Test::Mem => 500_000,
            _ => 1_000_000,
        });
        Ok(Some(asked))
    }
}

fn test_named(name: &str) -> Result<Test, String> {
    let found = Test::NAMED.iter().find(|(_, named)| *named == name);
    found.map(|(test, _)| *test).ok_or_else(|| {
        let names: Vec<&str> = Test::NAMED.iter().map(|(_, name)| *name).collect();
        format!("there are {}", names.join(", "))
    })
}

fn numbers(list: &str) -> Result<Vec<usize>, std::num::ParseIntError> {
    list.split(',').map(str::parse).collect()
}

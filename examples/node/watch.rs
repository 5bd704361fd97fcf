//! `--watch`: one line a member, drawn anew in its place.
//!
//! A node knows its own role, term and log; of the others it knows what is agreed (who leads,
//! who votes, who is up) and when it last heard them. Where the output is no terminal, a line
//! is printed whenever it says something else than before.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use kontiki::{Committed, Member, Verdict};

pub struct Watch {
    /// Whether lines can be drawn anew: the output is a terminal.
    redraws: bool,
    /// The lines as they stand there.
    drawn: Vec<String>,
    /// So many lines were typed below them since.
    typed: usize,
    /// The commit index at that time, for the rate.
    before: Option<(u64, Instant)>,
}

impl Watch {
    pub fn new() -> Watch {
        let redraws = io::stdout().is_terminal();
        Watch { redraws, drawn: Vec::new(), typed: 0, before: None }
    }

    /// A line was typed: the terminal has shown it below.
    pub fn typed(&mut self) {
        self.typed += usize::from(io::stdin().is_terminal());
    }

    /// Makes room for other lines; the next `draw` comes below them.
    pub fn lift(&mut self) {
        let up = self.drawn.len() + self.typed;
        if self.redraws && up > 0 {
            print!("\x1b[{up}A\r\x1b[J");
            // What comes next may go by way of standard error.
            let _ = io::stdout().flush();
        }
        if self.redraws {
            self.drawn.clear();
        }
        self.typed = 0;
    }

    /// Shows what the node knows now.
    pub fn draw(&mut self, known: &Committed) {
        let now = Instant::now();
        let rate = match self.before.replace((known.commit_index, now)) {
            Some((index, at)) => {
                let new = known.commit_index.saturating_sub(index) as f64;
                (new / now.duration_since(at).as_secs_f64().max(0.001)).round() as u64
            }
            None => 0,
        };
        let lines = lines(known, rate);
        if !self.redraws {
            let other = |line: &&String| !self.drawn.contains(line);
            lines.iter().filter(other).for_each(|line| println!("{line}"));
        } else if self.typed == 0 && self.drawn.len() == lines.len() {
            // What is being typed below stays as it is.
            let lines: String = lines.iter().map(|line| format!("{line}\x1b[K\r\n")).collect();
            print!("\x1b7\x1b[{}A\r{lines}\x1b8", self.drawn.len());
        } else {
            self.lift();
            lines.iter().for_each(|line| println!("{line}\x1b[K"));
        }
        // Whoever looked is gone: the node goes on all the same.
        let _ = io::stdout().flush();
        self.drawn = lines;
    }
}

/// The node's own line first, then the others' in order, and what is wrong, if anything is.
fn lines(known: &Committed, rate: u64) -> Vec<String> {
    let own = |member: &&Member| member.name == known.node;
    let width = known.members.iter().map(|member| member.name.len()).max().unwrap_or(0);
    let width = width.max(known.node.len());
    let verdict = known.members.iter().find(own).map_or("no member", up_or_down);
    let mut lines = vec![format!(
        "{:width$}  {:9}  {verdict:9}  term {}, committed {}, {rate} a second",
        known.node,
        known.role.to_string(),
        known.term,
        known.commit_index
    )];
    for member in known.members.iter().filter(|member| !own(member)) {
        let role = match (known.leader.as_ref() == Some(&member.name), member.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let heard = match member.heard_ago {
            Some(ago) => format!("heard {} ago", in_words(ago)),
            None => "not heard".to_string(),
        };
        let verdict = up_or_down(member);
        lines.push(format!("{:width$}  {role:9}  {verdict:9}  {heard}", member.name));
    }
    match known.quorum_ago {
        _ if !known.waiting_for.is_empty() => {
            lines.push(format!("waits for {}", known.waiting_for.join(", ")));
        }
        Some(ago) if known.leader.is_none() => {
            lines.push(format!("no leader; in touch with a majority {} ago", in_words(ago)));
        }
        None if known.leader.is_none() => lines.push("no leader".to_string()),
        _ => {}
    }
    lines
}

fn up_or_down(member: &Member) -> &'static str {
    match member.verdict {
        Some(Verdict { up: true, .. }) => "up",
        Some(Verdict { up: false, .. }) => "down",
        None => "never up",
    }
}

/// Coarse enough that a line of a healthy member stays as it is.
fn in_words(ago: Duration) -> String {
    match ago.as_millis() {
        0..100 => "a moment".to_string(),
        ms @ 100..1000 => format!("0.{} s", ms / 100),
        ms => format!("{} s", ms / 1000),
    }
}

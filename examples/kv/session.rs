//! What a node keeps in mind of a connection: which protocol it speaks, and the commands of a
//! transaction, which wait from `MULTI` to `EXEC`.
//!
//! A pipeline is one entry of the log anyway, so that nothing comes between its commands. Between these
//! words it is so as well if it is long, or comes little by little; and many clients put them around a
//! pipeline without being asked. There is no `WATCH`.

use redis_protocol::resp2::types::OwnedFrame as Frame;

use crate::commands::{Kind, error, kind, ok};
use crate::resp::{COMMAND_BYTES, Words};

/// A command that can be carried out.
pub type Command = (Kind, Words);

/// What to do about a command.
pub enum Step {
    /// To say this, and no more.
    Say(Frame),
    /// To carry it out.
    Do(Command),
    /// To carry out all those since `MULTI`; their answers are one list.
    All(Vec<Command>),
}

impl Step {
    pub fn commands(&self) -> &[Command] {
        match self {
            Step::Say(_) => &[],
            Step::Do(command) => std::slice::from_ref(command),
            Step::All(commands) => commands,
        }
    }
}

#[derive(Default)]
pub struct Session {
    /// Whether it speaks the newer protocol.
    pub resp3: bool,
    transaction: Option<Transaction>,
}

#[derive(Default)]
struct Transaction {
    commands: Vec<Command>,
    bytes: usize,
    /// One of them cannot be carried out: then none is.
    spoilt: bool,
}

impl Session {
    /// What to do about the next command.
    pub fn step(&mut self, words: Words) -> Step {
        let kind = match kind(&words) {
            Ok(kind) => kind,
            Err(mistake) => return Step::Say(self.spoil(mistake)),
        };
        let name = words[0].to_ascii_uppercase();
        let Some(transaction) = &mut self.transaction else {
            return match name.as_slice() {
                b"MULTI" => {
                    self.transaction = Some(Transaction::default());
                    Step::Say(ok())
                }
                b"EXEC" => Step::Say(error("ERR EXEC without MULTI")),
                b"DISCARD" => Step::Say(error("ERR DISCARD without MULTI")),
                _ => Step::Do((kind, words)),
            };
        };
        match name.as_slice() {
            b"MULTI" => Step::Say(error("ERR MULTI calls can not be nested")),
            b"DISCARD" => {
                self.transaction = None;
                Step::Say(ok())
            }
            b"EXEC" => match self.transaction.take() {
                Some(Transaction { commands, spoilt: false, .. }) => Step::All(commands),
                _ => {
                    Step::Say(error("EXECABORT Transaction discarded because of previous errors."))
                }
            },
            _ => {
                transaction.bytes += words.iter().map(Vec::len).sum::<usize>();
                if transaction.bytes > COMMAND_BYTES {
                    return Step::Say(self.spoil(error("ERR the transaction is too long")));
                }
                transaction.commands.push((kind, words));
                Step::Say(Frame::SimpleString(b"QUEUED".to_vec()))
            }
        }
    }

    /// With this mistake in it, the transaction that has begun comes to nothing.
    fn spoil(&mut self, mistake: Frame) -> Frame {
        if let Some(transaction) = &mut self.transaction {
            *transaction = Transaction { spoilt: true, ..Transaction::default() };
        }
        mistake
    }
}

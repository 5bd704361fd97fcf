//! The thread of a user's state machine and watchers: one job at a time. A panic
//! in user code is caught here and ends the node, not the program.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;

use crate::engine::{self, Job};
use crate::error::Error;
use crate::guard;
use crate::replica::Replica;
use crate::shared::{Input, Shared};

/// The thread, and the way to give it a job.
pub(super) struct MachineThread {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl MachineThread {
    /// A thread that owns this state.
    pub(super) fn spawn(shared: &Arc<Shared>, replica: Replica) -> Result<MachineThread, Error> {
        let (jobs, waiting) = crossbeam_channel::bounded::<Job>(1);
        let name = format!("{}-machine", shared.name);
        let theirs = Arc::clone(shared);
        let body = move || {
            // The machine is dropped before the guard: its drop is a callback, too.
            let _guard = guard::enter();
            let mut replica = replica;
            for job in waiting {
                let done = catch_unwind(AssertUnwindSafe(|| engine::perform(&mut replica, job)));
                let input = match done {
                    Ok(done) => Input::Done(Box::new(done)),
                    Err(panic) => Input::MachinePanicked(guard::said(&*panic)),
                };
                let over = matches!(input, Input::MachinePanicked(_));
                theirs.put(input);
                if over {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(body)
            .map_err(|source| Error::Io { doing: format!("spawn the thread {name}"), source })?;
        Ok(MachineThread { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Gives it a job. It has none: the engine gives one at a time.
    pub(super) fn give(&self, job: Job) {
        // A thread that panicked has said so, and takes no more.
        let _ = self.jobs.as_ref().map(|jobs| jobs.try_send(job));
    }
}

/// Waits for the job under way, and for the thread to end: also when the node's
/// thread panics, so that no job of this run reports to the next one.
impl Drop for MachineThread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

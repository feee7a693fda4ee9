//! [`InUse`]: locks the variables that a call reads, or moves to another θ and back.
//!
//! candle's variables are shared, so an objective that evaluates a candle model at another θ moves the model there
//! temporarily. Calls that read the same variables wait; calls on other variables do not. A forward pass may itself
//! use objectives: a nested call knows its parent and does not wait for it. A call that would deadlock, directly or
//! through others, is an error.

use std::cell::Cell;
use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::TensorId;

use crate::error::{Error, Result};
use crate::model::Parameters;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Access {
    Read,
    Move,
}

#[derive(Debug)]
struct Use {
    id: u64,
    /// The use that this one is nested in.
    parent: Option<u64>,
    vars: HashSet<TensorId>,
    access: Access,
    /// Whether it has begun; otherwise it is waiting.
    granted: bool,
}

/// All uses, in the order of their requests.
struct Uses {
    list: Vec<Use>,
    next_id: u64,
}

static USES: Mutex<Uses> = Mutex::new(Uses {
    list: Vec::new(),
    next_id: 0,
});
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// The innermost use on this thread.
    static INNERMOST: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A use of a model's variables; it ends on drop.
pub(super) struct InUse {
    id: u64,
    /// `!Send`: a use ends on the thread where it began.
    _not_send: PhantomData<*const ()>,
}

impl InUse {
    /// Waits until nothing moves these variables, and prevents moves until dropped.
    pub(super) fn read(parameters: &Parameters) -> Result<Self> {
        Self::begin(parameters, Access::Read)
    }

    /// Waits until nothing uses these variables, and reserves them for this call.
    pub(super) fn moved(parameters: &Parameters) -> Result<Self> {
        Self::begin(parameters, Access::Move)
    }

    fn begin(parameters: &Parameters, access: Access) -> Result<Self> {
        let all = parameters.iter().chain(parameters.statistics());
        let mut uses = lock();
        let id = uses.next_id;
        uses.next_id += 1;
        uses.list.push(Use {
            id,
            parent: INNERMOST.get(),
            vars: all.map(|(_, var)| var.id()).collect(),
            access,
            granted: false,
        });
        loop {
            let me = uses.find(id);
            if uses.blockers(me).next().is_none() {
                break;
            }
            if uses.waits_for_itself(me) {
                uses.remove(id);
                return Err(Error::invalid(
                    "a model's forward pass evaluates a loss at another θ, and that moves parameters that the same forward \
                     pass is using: give the inner objective a copy of the parameters",
                ));
            }
            uses = CHANGED.wait(uses).unwrap_or_else(PoisonError::into_inner);
        }
        uses.find_mut(id).granted = true;
        INNERMOST.set(Some(id));
        Ok(Self {
            id,
            _not_send: PhantomData,
        })
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        INNERMOST.set(lock().remove(self.id));
    }
}

/// The innermost use of this thread, for [`with_parent`].
pub(super) fn current_use() -> Option<u64> {
    INNERMOST.get()
}

/// Calls `f` on another thread, as part of a use of this one.
pub(super) fn with_parent<T>(parent: Option<u64>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<u64>);
    impl Drop for Restore {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }
    let _restore = Restore(INNERMOST.replace(parent));
    f()
}

fn lock() -> MutexGuard<'static, Uses> {
    USES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uses {
    fn find(&self, id: u64) -> &Use {
        &self.list[self.position(id)]
    }

    fn find_mut(&mut self, id: u64) -> &mut Use {
        let position = self.position(id);
        &mut self.list[position]
    }

    /// Returns the position of a use in the list, which is sorted by id and holds every use until it ends.
    fn position(&self, id: u64) -> usize {
        self.list.partition_point(|other| other.id < id)
    }

    /// Ends a use and wakes waiting calls. Returns its parent.
    fn remove(&mut self, id: u64) -> Option<u64> {
        let position = self.position(id);
        let ended = self.list.remove(position);
        CHANGED.notify_all();
        ended.parent
    }

    fn is_part_of(&self, part: &Use, whole: u64) -> bool {
        let mut parent = part.parent;
        while let Some(id) = parent {
            if id == whole {
                return true;
            }
            parent = self.find(id).parent;
        }
        false
    }

    /// The uses that must end before this one can begin. Uses of the same variables run in the order of their
    /// requests, but a nested use goes before those that wait for its parent.
    fn blockers<'a>(&'a self, me: &'a Use) -> impl Iterator<Item = &'a Use> {
        let nested = self
            .list
            .iter()
            .any(|other| self.is_part_of(me, other.id) && !other.vars.is_disjoint(&me.vars));
        self.list.iter().filter(move |other| {
            let conflict = match self.is_part_of(me, other.id) {
                true => me.access == Access::Move,
                false => me.access == Access::Move || other.access == Access::Move,
            };
            let first = other.granted || (!nested && other.id < me.id);
            other.id != me.id && conflict && first && !other.vars.is_disjoint(&me.vars)
        })
    }

    /// Whether a waiting use is, directly or indirectly, waited for by a use that blocks it.
    fn waits_for_itself(&self, me: &Use) -> bool {
        let mut seen = HashSet::new();
        let mut waiting = vec![me];
        while let Some(one) = waiting.pop() {
            if !seen.insert(one.id) {
                continue;
            }
            for blocker in self.blockers(one) {
                if self.is_part_of(me, blocker.id) {
                    return true;
                }
                // A use ends after all its parts.
                let parts = self.list.iter();
                waiting.extend(parts.filter(|part| {
                    !part.granted && (part.id == blocker.id || self.is_part_of(part, blocker.id))
                }));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use candle_core::{Device, Var};

    use super::*;

    fn parameters(name: &str) -> Parameters {
        let var = Var::new(&[1f64], &Device::Cpu).unwrap();
        Parameters::new([(name.to_owned(), var)]).unwrap()
    }

    /// Runs `f` on another thread. The receiver gets its result.
    fn elsewhere<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            let _ = sender.send(f());
        });
        receiver
    }

    fn within_ten_seconds<T>(receiver: &Receiver<T>) -> T {
        receiver
            .recv_timeout(Duration::from_secs(10))
            .expect("it deadlocks")
    }

    /// Blocks until another use of these variables is waiting.
    fn until_one_waits(parameters: &Parameters) {
        let id = parameters.vars()[0].id();
        while !lock()
            .list
            .iter()
            .any(|other| !other.granted && other.vars.contains(&id))
        {
            std::thread::yield_now();
        }
    }

    #[test]
    fn readers_share_and_a_move_waits_for_them() {
        let ours = Arc::new(parameters("a"));
        let first = InUse::read(&ours).unwrap();
        let (also, moving) = (ours.clone(), ours.clone());
        within_ten_seconds(&elsewhere(move || drop(InUse::read(&also).unwrap())));
        let moved = elsewhere(move || drop(InUse::moved(&moving).unwrap()));
        until_one_waits(&ours);
        assert!(moved.try_recv().is_err());
        // Other variables are free, and a nested use does not wait for the move.
        drop(InUse::moved(&parameters("b")).unwrap());
        drop(InUse::read(&ours).unwrap());
        drop(first);
        within_ten_seconds(&moved);
    }

    #[test]
    fn a_part_can_read_variables_that_its_use_has_moved() {
        let ours = parameters("a");
        let _moved = InUse::moved(&ours).unwrap();
        let id = current_use();
        std::thread::scope(|scope| {
            let part = scope.spawn(|| with_parent(id, || InUse::read(&ours).map(drop)));
            part.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_move_within_a_use_of_the_same_variables_is_an_error() {
        let ours = parameters("a");
        for outer in [InUse::read, InUse::moved] {
            let _outer = outer(&ours).unwrap();
            let message = InUse::moved(&ours).err().unwrap().to_string();
            assert!(message.contains("forward pass"), "{message}");
        }
        drop(InUse::moved(&ours).unwrap());
    }

    /// Two batches of one call may each move another model: they take turns.
    #[test]
    fn parts_of_one_use_wait_for_each_other() {
        let (outer, inner) = (parameters("a"), Arc::new(parameters("b")));
        let _outer = InUse::read(&outer).unwrap();
        let id = current_use();
        let first = InUse::moved(&inner).unwrap();
        let other = inner.clone();
        let second = elsewhere(move || with_parent(id, || InUse::moved(&other).map(drop)));
        until_one_waits(&inner);
        assert!(second.try_recv().is_err());
        drop(first);
        within_ten_seconds(&second).unwrap();
    }

    /// One thread holds a and waits for b, the other holds b and waits for a.
    #[test]
    fn uses_that_wait_for_each_other_are_an_error() {
        let (a, b) = (Arc::new(parameters("a")), Arc::new(parameters("b")));
        let _a = InUse::moved(&a).unwrap();
        let (has_b, b_is_held) = channel();
        let (theirs, ours) = (b.clone(), a.clone());
        let other = elsewhere(move || {
            let b = InUse::moved(&theirs).unwrap();
            has_b.send(()).unwrap();
            let both = InUse::read(&ours).map(drop);
            drop(b);
            both
        });
        within_ten_seconds(&b_is_held);
        until_one_waits(&a);
        assert!(InUse::read(&b).is_err());
        drop(_a);
        within_ten_seconds(&other).unwrap();
    }
}
